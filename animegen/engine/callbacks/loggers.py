"""Loggers that a resumed run continues: entries after its checkpoint are replaced."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from animegen.engine.callbacks.dashboard import Charts, charts
from animegen.errors import AnimegenError
from animegen.files import completed


@runtime_checkable
class Resumable(Protocol):
    """A logger that can continue the log of an earlier process."""

    def resume_at(self, step: int) -> None:
        """Discard entries after train step ``step``; called before the first entry."""
        ...


class TensorBoardLogger(pl.loggers.TensorBoardLogger):
    """Write event files to the run folder itself, with a layout of CUSTOM SCALARS for the scalars of the run.

    Args:
        save_dir: the run folder.
        flush_secs: longest delay in seconds before entries are in the file.
    """

    #: Patterns of the files of this logger, relative to the run folder.
    writes = ("events.out.tfevents.*", "hparams.yaml")

    def __init__(self, save_dir: str, flush_secs: int = 30) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, flush_secs=flush_secs)
        self._tags: set[str] = set()
        self._layout: Charts = {}

    def resume_at(self, step: int) -> None:
        """Make TensorBoard hide entries of earlier event files after ``step``."""
        self._kwargs["purge_step"] = step + 1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars, and the layout of the charts if it changes with new tags."""
        super().log_metrics(metrics, step)
        if not self._tags.issuperset(metrics):
            self._tags.update(metrics)
            layout = charts(self._tags)
            if layout != self._layout:
                self._layout = layout
                self.experiment.add_custom_scalars(layout)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Mapping[str, float] | None = None, step: int | None = None) -> None:
        """Write the hyperparameters of HPARAMS, and the final scores.

        The list of columns is left out: TensorBoard shows that of one run for all runs, and without it the columns of
        all of them.
        """
        self.hparams.update(params)
        for name, value in (metrics or {}).items():
            self.experiment.add_scalar(name, value, step)
        _, start, end = hparams(dict(params), {})
        for summary in (start, end):
            self.experiment._get_file_writer().add_summary(summary)


class CsvLogger(Logger):
    """Write ``metrics.csv`` to the run folder, with a row per logged train step.

    Args:
        save_dir: the run folder.
        every: number of entries after which the file is written.
    """

    #: Patterns of the files of this logger, relative to the run folder.
    writes = ("metrics.csv",)

    def __init__(self, save_dir: str, every: int = 20) -> None:
        super().__init__()
        self._folder, self._every = save_dir, every
        self._rows: dict[int, dict[str, Any]] = {}
        self._pending = 0

    @property
    def path(self) -> Path:
        """Path of the file."""
        return Path(self._folder) / "metrics.csv"

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return self._folder

    @property
    def name(self) -> str:
        """Empty: each run has its own folder."""
        return ""

    @property
    def version(self) -> str:
        """Empty: each run has its own folder."""
        return ""

    def resume_at(self, step: int) -> None:
        """Keep the rows of the file up to ``step``."""
        if self.path.is_file():
            try:
                with self.path.open(newline="") as file:
                    rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
                self._rows = {int(row["step"]): row for row in rows if int(row["step"]) <= step}
            except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
                raise AnimegenError(
                    f"'{self.path}' is damaged ({' '.join(str(error).split())[:100]}): remove it, or set"
                    " logger=tensorboard."
                ) from error

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of a step."""
        step = max(self._rows, default=0) if step is None else step
        self._rows.setdefault(step, {"step": step}).update(metrics)
        self._pending += 1
        if self._pending >= self._every:
            self.save()

    @rank_zero_only
    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: hyperparameters are in ``run.json``."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file atomically, if there are new entries."""
        if not self._pending:  # a run without entries, such as a rejected one, keeps the old file
            return
        self._pending = 0
        columns = dict.fromkeys(key for row in self._rows.values() for key in row)
        with completed(self.path) as hidden, hidden.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(columns))
            writer.writeheader()
            writer.writerows(self._rows.values())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file."""
        self.save()
