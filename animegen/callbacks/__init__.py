"""What happens around the steps: checkpoints, previews, records, progress, calibration."""

from animegen.callbacks.calibration import InfluenceCalibration
from animegen.callbacks.checkpoints import Checkpoints, StopAfter
from animegen.callbacks.previews import Previews
from animegen.callbacks.progress import LogEvery, Progress, StepProfiler
from animegen.callbacks.resume import ExactResume
from animegen.callbacks.run_record import RunRecord

__all__ = [
    "Checkpoints",
    "ExactResume",
    "InfluenceCalibration",
    "LogEvery",
    "Previews",
    "Progress",
    "RunRecord",
    "StepProfiler",
    "StopAfter",
]
