"""Loggers that a resumed run goes on with: what the stopped run logged after its checkpoint is replaced."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from animegen.errors import AnimegenError
from animegen.files import completed


@runtime_checkable
class Resumable(Protocol):
    """A logger that can go on with the log of an earlier process."""

    def resume_at(self, step: int) -> None:
        """Drop what was logged after train step ``step``; called before anything is logged."""
        ...


class TensorBoardLogger(pl.loggers.TensorBoardLogger):
    """Event files in the run folder itself.

    Args:
        save_dir: the run folder.
        flush_secs: seconds after which what was logged is in the file.
    """

    #: The files that it writes, relative to the run folder.
    writes = ("events.out.tfevents.*", "hparams.yaml")

    def __init__(self, save_dir: str, flush_secs: int = 30) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False, flush_secs=flush_secs)

    def resume_at(self, step: int) -> None:
        """Make TensorBoard hide what earlier event files of the run hold beyond ``step``."""
        self._kwargs["purge_step"] = step + 1


class CsvLogger(Logger):
    """``metrics.csv`` in the run folder: a row per train step at which anything was logged.

    Args:
        save_dir: the run folder.
        every: how many writings are kept in memory before the file is brought up to date.
    """

    #: The files that it writes, relative to the run folder.
    writes = ("metrics.csv",)

    def __init__(self, save_dir: str, every: int = 20) -> None:
        super().__init__()
        self._folder, self._every = save_dir, every
        self._rows: dict[int, dict[str, Any]] = {}
        self._pending = 0

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._folder) / "metrics.csv"

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return self._folder

    @property
    def name(self) -> str:
        """Runs have folders of their own, not names."""
        return ""

    @property
    def version(self) -> str:
        """Runs have folders of their own, not versions."""
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
        """Hyperparameters are in ``run.json``."""

    @rank_zero_only
    def save(self) -> None:
        """Bring the file up to date; it is complete at any time."""
        if not self._pending:  # a run that logs nothing, such as a refused one, leaves the file as it is
            return
        self._pending = 0
        columns = dict.fromkeys(key for row in self._rows.values() for key in row)
        with completed(self.path) as hidden, hidden.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(columns))
            writer.writeheader()
            writer.writerows(self._rows.values())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is pending."""
        self.save()
