"""Gradient accumulation by the stage of a curriculum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from animegen.data.clips.curriculum import Curriculum
from animegen.engine.lightning import LightningAdapter


class CurriculumSteps(pl.Callback):
    """Set the number of chunks of a batch by the stage of the current step, and log the stage.

    It has no state, since the stage is a function of the step.

    Args:
        stages: the stages of the data.
    """

    def __init__(self, stages: Sequence[dict[str, Any]]) -> None:
        self.curriculum = Curriculum(stages)

    def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Set the stage."""
        module.updater.accumulate = self.curriculum.stages[self.curriculum.at_step(module.train_step)].accumulate

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        """Log the stage at the interval of the other logs."""
        if module.train_step % module.model.log_every == 0:
            module.write({"curriculum/stage": float(self.curriculum.at_step(module.train_step - 1))})
