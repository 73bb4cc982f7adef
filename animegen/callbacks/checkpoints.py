"""Checkpoints at train steps, complete or not there at all; and the end of the run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from animegen.core.errors import AnimegenError
from animegen.core.module import AnimeModule


class Checkpoints(pl.Callback):
    """Write ``checkpoints/last.ckpt`` every so many train steps and at the end of the run.

    Args:
        every: train steps between checkpoints.
        keep: also keep the newest so many under ``step-<train_step>.ckpt``; -1 keeps all.
        monitor: a value that validation writes, such as ``val/psnr``; the best goes to ``best.ckpt``.
        mode: ``max`` if more of ``monitor`` is better, else ``min``.
    """

    def __init__(self, every: int = 500, keep: int = 0, monitor: str | None = None, mode: str = "max") -> None:
        if every < 1:
            raise AnimegenError(f"callbacks.checkpoints.every must be at least 1, got {every}.")
        if mode not in ("min", "max"):
            raise AnimegenError(f"callbacks.checkpoints.mode must be min or max, not '{mode}'.")
        self.every, self.keep, self.monitor, self.mode = every, keep, monitor, mode
        self.best: float | None = None
        self._saved_at = -1

    def on_train_batch_end(self, trainer: pl.Trainer, module: AnimeModule, *_: Any) -> None:
        """Save when the step is due."""
        if module.train_step % self.every == 0:
            self.save(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: AnimeModule) -> None:
        """Save the best so far."""
        value = trainer.callback_metrics.get(self.monitor) if self.monitor else None
        if value is None:
            return
        score = float(value)
        if self.best is None or (score > self.best if self.mode == "max" else score < self.best):
            self.best = score
            save_checkpoint(trainer, folder(trainer) / "best.ckpt")

    def on_train_end(self, trainer: pl.Trainer, module: AnimeModule) -> None:
        """Save the last state, also when the run was interrupted by the user."""
        if module.train_step != self._saved_at:
            self.save(trainer, module)

    def save(self, trainer: pl.Trainer, module: AnimeModule) -> None:
        """Write the checkpoint of the present step."""
        self._saved_at = module.train_step
        save_checkpoint(trainer, folder(trainer) / "last.ckpt")
        if self.keep and trainer.is_global_zero:
            name = folder(trainer) / f"step-{module.train_step:07d}.ckpt"
            # A hard link costs nothing; last.ckpt is replaced, never written in place.
            name.unlink(missing_ok=True)
            os.link(folder(trainer) / "last.ckpt", name)
            kept = sorted(folder(trainer).glob("step-*.ckpt"))
            for old in kept[: -self.keep] if self.keep > 0 else []:
                old.unlink()

    def state_dict(self) -> dict[str, Any]:
        """Return the best score for the checkpoint."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the best score."""
        self.best = state["best"]


class StopAfter(pl.Callback):
    """End the run when the module has trained ``train_steps`` batches (Lightning counts optimizer steps)."""

    def __init__(self, train_steps: int) -> None:
        self.train_steps = train_steps

    def on_train_batch_end(self, trainer: pl.Trainer, module: AnimeModule, *_: Any) -> None:
        """Ask Lightning to stop."""
        if module.train_step >= self.train_steps:
            trainer.should_stop = True


def folder(trainer: pl.Trainer) -> Path:
    """Return the checkpoint folder of a run."""
    return Path(trainer.default_root_dir) / "checkpoints"


def save_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Write a checkpoint that appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        trainer.save_checkpoint(unfinished, weights_only=False)
        if trainer.is_global_zero:
            os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise AnimegenError(f"The checkpoint '{path}' cannot be written ({error.strerror}): make room, then resume the run.") from error
