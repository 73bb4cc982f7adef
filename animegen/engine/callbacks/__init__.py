"""Callbacks: checkpoints, previews, run records, progress, calibration."""

from animegen.engine.callbacks.calibration import InfluenceCalibration
from animegen.engine.callbacks.checkpoints import Checkpoints, StopAfter, StopOnSignal
from animegen.engine.callbacks.loggers import CsvLogger, Resumable, TensorBoardLogger
from animegen.engine.callbacks.previews import Previews
from animegen.engine.callbacks.progress import LogEvery, Progress
from animegen.engine.callbacks.resume import ExactResume
from animegen.engine.callbacks.run_record import RunRecord

__all__ = [
    "Checkpoints",
    "CsvLogger",
    "ExactResume",
    "InfluenceCalibration",
    "LogEvery",
    "Previews",
    "Progress",
    "Resumable",
    "RunRecord",
    "StopAfter",
    "StopOnSignal",
    "TensorBoardLogger",
]
