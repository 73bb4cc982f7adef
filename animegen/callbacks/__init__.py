"""What happens around the steps: checkpoints, previews, records, progress, calibration."""

from animegen.callbacks.calibration import InfluenceCalibration
from animegen.callbacks.checkpoints import Checkpoints, StopAfter, StopOnSignal
from animegen.callbacks.loggers import CsvLogger, Resumable, TensorBoardLogger
from animegen.callbacks.previews import Previews
from animegen.callbacks.progress import LogEvery, Progress
from animegen.callbacks.resume import ExactResume
from animegen.callbacks.run_record import RunRecord

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
