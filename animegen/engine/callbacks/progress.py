"""Progress display on the terminal, and the interval of log entries."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from animegen.engine.lightning import LightningAdapter
from animegen.errors import AnimegenError


class LogEvery(pl.Callback):
    """Log scalars at an interval of train steps, each as the mean since the last entry.

    Args:
        steps: the interval.
    """

    def __init__(self, steps: int = 10) -> None:
        if steps < 1:
            raise AnimegenError(f"callbacks.log.steps must be at least 1, got {steps}.")
        self.steps = steps

    def on_fit_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Set the interval of the module."""
        module.model.log_every = self.steps


class Progress(pl.Callback):
    """A progress bar on a terminal, otherwise one line every ``every`` steps, with the time left.

    Also logs ``perf/steps_per_s`` and ``perf/samples_per_s``.

    Args:
        every: interval in train steps of the lines, or of updates of the bar.
        train_steps: length of the run, for display.
    """

    def __init__(self, every: int = 50, train_steps: int | None = None) -> None:
        if every < 1:
            raise AnimegenError(f"callbacks.progress.every must be at least 1, got {every}.")
        self.every, self.train_steps = every, train_steps
        self._bar: RichProgress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Start the bar."""
        self._began = self._since, self._at = time.perf_counter(), module.train_step
        if trainer.is_global_zero and sys.stderr.isatty():
            columns = (
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
            )
            self._bar = RichProgress(*columns, transient=True, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("train", total=self.train_steps, completed=module.train_step, values="")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: LightningAdapter, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Update the display at the interval."""
        if module.train_step % self.every:
            return
        now = time.perf_counter()
        rate = (module.train_step - self._at) / max(now - self._since, 1e-9)
        self._since, self._at = now, module.train_step
        if not trainer.is_global_zero:
            return
        samples = len(next(iter(batch.values()))) * trainer.world_size
        module.write({"perf/steps_per_s": rate, "perf/samples_per_s": rate * samples})
        values = self._values(module, rate)
        if self._bar is not None:
            self._bar.update(self._task, completed=module.train_step, values=values)
        else:
            of, left = "", ""
            if self.train_steps:
                of = f"/{self.train_steps}"
                steps = (module.train_step - self._began[1]) / max(now - self._began[0], 1e-9)
                left = f"  {timedelta(seconds=round((self.train_steps - module.train_step) / steps))} left"
            print(f"step {module.train_step}{of}  {values}{left}", file=sys.stderr, flush=True)

    def _values(self, module: LightningAdapter, rate: float) -> str:
        totals = {name.split("/")[1]: value for name, value in module.shown.items() if name.endswith("/total")}
        parts = [f"{name} {value:.4g}" for name, value in totals.items()]
        return "  ".join([*parts, f"{rate:.1f} steps/s"])

    def on_train_end(self, *_: Any) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, *_: Any) -> None:
        """Stop the bar before the error message."""
        self.on_train_end()
