"""Atomic checkpoints at train steps, and the end of a run: after its last step, or by a signal."""

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
    """Write ``checkpoints/last.ckpt`` at an interval of train steps and at the end of the run.

    If the step is validated, too, the checkpoint is written afterwards: it holds the metrics, and a resumed run neither
    repeats nor skips the validation.

    Args:
        every: interval in train steps.
        keep: number of checkpoints that are also kept as ``step-<train_step>.ckpt``; -1 keeps all.
        monitor: a metric of the validation, such as ``val/psnr``; the model with the best value is kept as
            ``best.ckpt``. A resumed run reads the best value from that file.
        mode: ``max`` if larger values of ``monitor`` are better, else ``min``.

    Raises:
        AnimegenError: for invalid settings.
    """

    #: Patterns of the files of this callback, relative to the run folder.
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
        """Read the best value from ``best.ckpt``."""
        self.best = _value_in(folder(trainer) / "best.ckpt", self.monitor) if self.monitor else None

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Save if the step is due and not validated."""
        if module.train_step % self.every == 0 and not validation_follows(trainer, module):
            self.save(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Save if the step is due, and if the metrics are the best so far."""
        # Best first: a run that is killed in between is resumed before this step, and saves both again.
        if self._is_better(trainer):
            save_checkpoint(trainer, module, folder(trainer) / "best.ckpt")
        if module.train_step % self.every == 0:
            self.save(trainer, module)

    def _is_better(self, trainer: pl.Trainer) -> bool:
        """Return whether the monitored value is the best so far, and store it."""
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
        """Save the final state."""
        self.save(trainer, module)

    def save(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Write the checkpoint of the current step, unless it exists."""
        if module.train_step == self._saved_at:
            return
        self._saved_at = module.train_step
        for logger in trainer.loggers:  # a resumed run keeps what was logged before the checkpoint
            logger.save()
        last = folder(trainer) / "last.ckpt"
        save_checkpoint(trainer, module, last)
        if self.keep and trainer.is_global_zero:
            _copy(last, folder(trainer) / f"step-{module.train_step:07d}.ckpt")
            kept = sorted(folder(trainer).glob("step-*.ckpt"))
            for old in kept[: -self.keep] if self.keep > 0 else []:
                old.unlink()


class StopAfter(pl.Callback):
    """End the run after ``train_steps`` batches (Lightning's ``max_steps`` counts optimizer steps)."""

    def __init__(self, train_steps: int) -> None:
        self.train_steps = train_steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Stop the trainer after the last step."""
        if module.train_step >= self.train_steps:
            trainer.should_stop = True


class StopOnSignal(pl.Callback):
    """End the run after the current step, with a checkpoint, on Ctrl+C or SIGTERM.

    The run can then be resumed exactly. A second signal ends it immediately, and so does the first one with several
    processes, which may be at different steps.

    Args:
        checkpoints: the callbacks that write the checkpoint.
    """

    def __init__(self, checkpoints: Sequence[Checkpoints] = ()) -> None:
        self._checkpoints = checkpoints
        self._asked = False
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Install the signal handlers."""
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """End the run, unless the step is validated first."""
        if self._asked and not validation_follows(trainer, module):
            self._leave(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """End the run after the validation."""
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
    """Return, at the end of a batch, whether Lightning validates before the next one."""
    due = trainer.should_stop or module.train_step % (trainer.val_check_batch or math.inf) == 0
    return due and trainer.enable_validation and sum(trainer.num_val_batches) > 0


def folder(trainer: pl.Trainer) -> Path:
    """Return the checkpoint folder of a run."""
    return Path(trainer.default_root_dir) / "checkpoints"


def save_checkpoint(trainer: pl.Trainer, module: LightningAdapter, path: Path) -> None:
    """Write a checkpoint atomically.

    Raises:
        AnimegenError: if it cannot be written, or if weights are not finite; an old file is kept.
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
    """Return a metric in a checkpoint; ``None`` if there is none, or if the file is damaged."""
    try:
        value = read_checkpoint(path)["animegen"]["metrics"].get(name)
    except (AnimegenError, KeyError, AttributeError):
        return None
    return value if isinstance(value, float) else None


def _copy(source: Path, target: Path) -> None:
    """Create a hard link to a file, or a copy if the file system has no hard links."""
    # A hard link is safe, since checkpoints are replaced and never written in place.
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
