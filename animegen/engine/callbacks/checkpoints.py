"""Checkpoints at train steps, complete or not there at all; and the two ways in which a run ends."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.lightning import LightningAdapter
from animegen.errors import AnimegenError


class Checkpoints(pl.Callback):
    """Write ``checkpoints/last.ckpt`` every so many train steps and at the end of the run.

    Where a step is also validated, the checkpoint is written after that: a resumed run neither
    repeats nor loses a validation, and the checkpoint holds its metrics.

    Args:
        every: train steps between checkpoints.
        keep: also keep the newest so many under ``step-<train_step>.ckpt``; -1 keeps all.
        monitor: a value that validation writes, such as ``val/psnr``; the model with the best value of the run folder
            is ``best.ckpt``. A resumed run reads that value from the file.
        mode: ``max`` if more of ``monitor`` is better, else ``min``.
    """

    #: The files that it writes, relative to the run folder.
    writes = ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "checkpoints/step-*.ckpt", "checkpoints/*.unfinished")

    def __init__(self, every: int = 500, keep: int = 0, monitor: str | None = None, mode: str = "max") -> None:
        if every < 1:
            raise AnimegenError(f"callbacks.checkpoints.every must be at least 1, got {every}.")
        if mode not in ("min", "max"):
            raise AnimegenError(f"callbacks.checkpoints.mode must be min or max, not '{mode}'.")
        self.every, self.keep, self.monitor, self.mode = every, keep, monitor, mode
        self.best: float | None = None
        self._saved_at = -1

    def on_train_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Read the best value so far."""
        self.best = _value_in(folder(trainer) / "best.ckpt", self.monitor) if self.monitor else None

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Save when the step is due."""
        if module.train_step % self.every == 0 and not validation_follows(trainer, module):
            self.save(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Save when the step is due, and the best so far."""
        # The best first: a run that is killed between the two repeats these steps, and saves the best again.
        if self._is_better(trainer):
            save_checkpoint(trainer, module, folder(trainer) / "best.ckpt")
        if module.train_step % self.every == 0:
            self.save(trainer, module)

    def _is_better(self, trainer: pl.Trainer) -> bool:
        """Take over the monitored value if it is the best so far."""
        if self.monitor is None:
            return False
        if self.monitor not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics)) or "none for these data"
            raise AnimegenError(
                f"callbacks.checkpoints.monitor={self.monitor} is no value of the validation; there are: {known}."
            )
        score = float(trainer.callback_metrics[self.monitor])
        sign = 1 if self.mode == "max" else -1
        if not math.isfinite(score) or (self.best is not None and sign * score <= sign * self.best):
            return False
        self.best = score
        return True

    def on_train_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Save the last state."""
        self.save(trainer, module)

    def save(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Write the checkpoint of the present step, unless that was done."""
        if module.train_step == self._saved_at:
            return
        self._saved_at = module.train_step
        last = folder(trainer) / "last.ckpt"
        save_checkpoint(trainer, module, last)
        if self.keep and trainer.is_global_zero:
            _copy(last, folder(trainer) / f"step-{module.train_step:07d}.ckpt")
            kept = sorted(folder(trainer).glob("step-*.ckpt"))
            for old in kept[: -self.keep] if self.keep > 0 else []:
                old.unlink()


class StopAfter(pl.Callback):
    """End the run when the module has trained ``train_steps`` batches (Lightning counts optimizer steps)."""

    def __init__(self, train_steps: int) -> None:
        self.train_steps = train_steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Ask Lightning to stop."""
        if module.train_step >= self.train_steps:
            trainer.should_stop = True


class StopOnSignal(pl.Callback):
    """Ctrl+C, or SIGTERM from a scheduler, ends the run after the present step, with a checkpoint of it.

    So nothing is lost, and the run can be resumed to the bit. A second signal ends the run at once.
    With several processes a signal ends the run at once, since they may not agree on the step.

    Args:
        checkpoints: the callbacks that write the checkpoint.
    """

    def __init__(self, checkpoints: Sequence[Checkpoints] = ()) -> None:
        self._checkpoints = checkpoints
        self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Begin to listen."""
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Leave, unless the validation of this step is still to come."""
        if self._asked and not validation_follows(trainer, module):
            self._leave(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Leave after the validation."""
        if self._asked:
            self._leave(trainer, module)

    def _leave(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        for callback in self._checkpoints:
            callback.save(trainer, module)
        raise KeyboardInterrupt

    def on_train_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Restore the handlers of Lightning, before it restores those of the process."""
        while self._before:
            signal.signal(*self._before.popitem())

    def on_exception(self, trainer: pl.Trainer, module: LightningAdapter, exception: BaseException) -> None:
        """Restore the handlers of Lightning, before it restores those of the process."""
        self.on_train_end(trainer, module)


def validation_follows(trainer: pl.Trainer, module: LightningAdapter) -> bool:
    """Tell at the end of a batch whether Lightning validates before the next one."""
    due = trainer.should_stop or module.train_step % (trainer.val_check_batch or math.inf) == 0
    return due and trainer.enable_validation and sum(trainer.num_val_batches) > 0


def folder(trainer: pl.Trainer) -> Path:
    """Return the checkpoint folder of a run."""
    return Path(trainer.default_root_dir) / "checkpoints"


def save_checkpoint(trainer: pl.Trainer, module: LightningAdapter, path: Path) -> None:
    """Write a checkpoint that appears under its name only when it is complete.

    Raises:
        AnimegenError: if it cannot be written, or if the weights are spoilt; the old file stays.
    """
    module.check_finite()
    unfinished = path.with_suffix(".unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(unfinished, weights_only=False)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise AnimegenError(
            f"The checkpoint '{path}' cannot be written ({error.strerror or error}): make room, then resume the run."
        ) from error


def _value_in(path: Path, name: str) -> float | None:
    """Return a value of the validation that a checkpoint holds; ``None`` without one, or if it is damaged."""
    try:
        value = read_checkpoint(path)["animegen"]["metrics"].get(name)
    except (AnimegenError, KeyError, AttributeError):
        return None
    return value if isinstance(value, float) else None


def _copy(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    # A hard link costs nothing and is safe: checkpoints are replaced, never written in place.
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
