"""Base module with logging by train step, and a guard against values that are not finite."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from animegen.engine.step_log import NonFinite, StepLog
from animegen.errors import AnimegenError


class LoggedModule(pl.LightningModule):
    """A LightningModule that logs scalars over ``train_step`` without synchronising with the device in each step."""

    def __init__(self) -> None:
        super().__init__()
        #: Number of batches trained so far: saved in checkpoints, and the x-axis of all logs.
        self.train_step = 0
        #: Interval of log entries in train steps.
        self.log_every = 10
        #: Last values sent to the loggers, for progress displays.
        self.shown: dict[str, float] = {}
        self._log = StepLog()
        self._network_parameters: dict[str, list[nn.Parameter]] = {}

    def record(self, name: str, value: Tensor) -> None:
        """Log a scalar tensor of the current step as ``train/<name>``."""
        self._log.set(f"train/{name}", value)

    def flush_log(self) -> None:
        """Log the mean of everything recorded since the last call.

        Raises:
            AnimegenError: if a value is NaN or infinite.
        """
        row = self._log.means()
        if not row:
            return
        if not all(map(math.isfinite, row.values())):
            self._stop_at(self._log.nonfinite(), self.train_step)
        self._log.clear()
        self.write({**row, **self.learning_rates()})

    def learning_rates(self) -> dict[str, float]:
        """Return the current learning rates by tag."""
        return {}

    def write(self, row: dict[str, float]) -> None:
        """Send scalars to all loggers at ``train_step``."""
        self.shown.update(row)
        for logger in self._trainer.loggers if self._trainer is not None else []:
            logger.log_metrics(row, step=self.train_step)

    def check_finite(self) -> None:
        """Check the losses since the last log entry, and the weights; called before a checkpoint is written.

        Raises:
            AnimegenError: if any is NaN or infinite.
        """
        if not all(map(math.isfinite, self._log.means().values())):
            self._stop_at(self._log.nonfinite(), self.train_step)
        for name, parameters in self._network_parameters.items():
            # The norm, not the largest weight, which an empty shard of a sharded network does not have.
            norm = nn.utils.get_total_norm(parameters).item()
            if not math.isfinite(norm):
                self._stop(f"The weights of '{name}' became {norm}", self.train_step)

    def check_loss(self, total: Tensor) -> None:
        """Check a loss on the CPU. On an accelerator the check would stall each step and is left to `flush_log`.

        Raises:
            AnimegenError: if it is NaN or infinite.
        """
        if total.device.type == "cpu" and not math.isfinite(total.item()):
            self._stop_at(self._log.nonfinite(), self.train_step + 1)

    def _stop_at(self, found: NonFinite | None, step: int) -> None:
        if found is not None:
            network, _, term = found.tag.removeprefix("train/").rpartition("/")
            what = f"The term '{term}' of '{network}'" if network else f"'{term}'"
            self._stop(f"{what} became {found.value}", step - found.steps_ago)

    def _stop(self, what: str, step: int) -> NoReturn:
        raise AnimegenError(
            f"{what} in train step {step}; training stopped and the last checkpoint is intact. Try a smaller"
            " learning rate, model.clip=1, precision=fp32, or a smaller weight of that term."
        )


class ValidatedModule(LoggedModule):
    """A logged module that averages the validation metrics of :meth:`validate` over all samples and processes."""

    def __init__(self) -> None:
        super().__init__()
        self._validation: dict[str, list[Tensor]] = {}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return named metrics (scalars, or one value per sample) of one validation batch."""
        return {}

    def on_validation_start(self) -> None:
        """Discard the metrics of earlier validations."""
        self._validation = {}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> None:
        """Collect the metrics of one batch."""
        for name, value in self.validate(batch).items():
            self._validation.setdefault(name, []).append(value.detach().float().reshape(-1))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/<metric>``, the mean over all samples of all processes."""
        row = {}
        for name, values in self._validation.items():
            column = torch.cat(values)
            total = torch.stack([column.sum(), torch.tensor(float(len(column)), device=column.device)])
            strategy: Any = self.trainer.strategy
            total = strategy.reduce(total, reduce_op="sum")
            row[f"val/{name}"] = (total[0] / total[1]).item()
        if row:
            self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in row.items()})
            self.write(row)
