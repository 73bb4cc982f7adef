"""Training of a model with PyTorch Lightning: ``Trainer().fit(LightningAdapter(model), datamodule=data)``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from animegen.engine.environment import Environment
from animegen.engine.module import AnimeModule
from animegen.engine.sharded import shard
from animegen.engine.updater import Stepped, Updater
from animegen.errors import AnimegenError


class LightningAdapter(pl.LightningModule):
    """A model as a LightningModule with manual optimization, for any trainer, strategy, precision and logger.

    State dicts and checkpoints have the keys of the model, without a prefix. Logs have ``train_step`` as their x-axis
    and need no synchronization with the device in each step.

    Args:
        model: the model, available as :attr:`model` in callbacks.
    """

    def __init__(self, model: AnimeModule) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        #: Performs the updates; available once training starts.
        self.updater: Updater
        #: Last values sent to the loggers, for progress displays.
        self.shown: dict[str, float] = {}
        self._averages: dict[str, Any] | None = None
        self._validation: dict[str, list[Tensor]] = {}

    @property
    def train_step(self) -> int:
        """Number of batches trained so far."""
        return self.model.train_step

    # --- setup ---------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Load pretrained weights, set the memory format, and compile."""
        settings = self.model.settings
        if stage == "fit":
            self.model.load_pretrained()
        if settings.channels_last:
            # Including the feature network, which would otherwise convert its input in each pass.
            self.model.to(memory_format=torch.channels_last)
        if stage == "fit":
            for name in settings.compile:
                self.model.network(name).compile()

    def configure_model(self) -> None:
        """Shard the networks for a sharded strategy."""
        shard(self.trainer.strategy, self.model.networks())

    def configure_optimizers(self) -> Any:
        """Build the optimizers and schedulers."""
        trains = self.model.trains
        return self.model.settings.build_optimizers(lambda update: self.model.network(trains.get(update, update)))

    def on_fit_start(self) -> None:
        """Start the training of the model, and assign the optimizers to its updates."""
        strategy: Any = self.trainer.strategy
        several = self.trainer.world_size > 1
        environment = Environment(
            data=getattr(self.trainer, "datamodule", None),
            folder=Path(self.trainer.default_root_dir),
            processes=self.trainer.world_size,
            first=self.trainer.is_global_zero,
            barrier=strategy.barrier,
            mean=partial(strategy.reduce, reduce_op="mean") if several else lambda value: value,
        )
        self.model.start_training(environment)
        if self.model.ema is not None and self._averages is not None:
            self.model.ema.load_state_dict(self._averages)
            self._averages = None
        no_sync = getattr(strategy, "block_backward_sync", nullcontext)
        self.updater = Updater(self.model, self._stepped(), self.manual_backward, no_sync)

    def _stepped(self) -> dict[str, Stepped]:
        """Return the optimizer, wrapped by Lightning, and the scheduler of each update."""
        optimizers, schedulers = self.optimizers(), self.lr_schedulers() or []
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        by_optimizer = {id(scheduler.optimizer): scheduler for scheduler in schedulers}
        return {
            name: Stepped(optimizer, by_optimizer.get(id(optimizer.optimizer)))
            for name, optimizer in zip(self.model.settings.optimizers, optimizers, strict=True)
        }

    # --- training and validation ---------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> None:
        """Perform all updates of one batch."""
        self.updater.step(batch)
        if self.train_step % self.model.log_every == 0:
            self.flush_log()

    def on_train_end(self) -> None:
        """Log what was recorded since the last log entry."""
        self.flush_log()

    def on_validation_start(self) -> None:
        """Discard the metrics of earlier validations."""
        self._validation = {}

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> None:
        """Collect the metrics of one batch, computed with the averaged weights."""
        with self.model.ema_scope():
            metrics = self.model.validate(batch)
        for name, value in metrics.items():
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

    # --- logs ----------------------------------------------------------------------------------

    def flush_log(self) -> None:
        """Log the mean of everything recorded since the last call.

        Raises:
            AnimegenError: if a value is NaN or infinite.
        """
        if row := self.model.scalars.finite_means(self.train_step):
            self.model.scalars.clear()
            self.write({**row, **self.updater.learning_rates()})

    def write(self, row: dict[str, float]) -> None:
        """Send scalars to all loggers at ``train_step``."""
        self.shown.update(row)
        for logger in self.trainer.loggers:
            logger.log_metrics(row, step=self.train_step)

    def check_finite(self) -> None:
        """Check the losses since the last log entry, and the weights; called before a checkpoint is written.

        Raises:
            AnimegenError: if any is NaN or infinite.
        """
        self.model.scalars.finite_means(self.train_step)
        self.updater.check_weights()

    # --- checkpoints ---------------------------------------------------------------------------

    def state_dict(self, *args: Any, **settings: Any) -> dict[str, Any]:
        """Return the state dict of the model."""
        return self.model.state_dict(*args, **settings)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the state dict of the model."""
        return self.model.load_state_dict(state_dict, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the train step and the averages (see :mod:`animegen.engine.checkpoint` for the rest)."""
        state = checkpoint.setdefault("animegen", {})
        state.update(self.model.run_info)
        state["metrics"] = dict(self.shown)
        state["train_step"] = self.train_step
        state["optimizers"] = list(self.model.settings.optimizers)
        if self.model.ema is not None:
            state["ema"] = self.model.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the train step and the averages.

        Raises:
            AnimegenError: if the checkpoint is of a model with other optimizers.
        """
        state = checkpoint.get("animegen", {})
        names, mine = state.get("optimizers"), list(self.model.settings.optimizers)
        if names is not None and mine and names != mine:
            raise AnimegenError(
                f"The checkpoint was trained with the optimizers {names}, this run has {mine}: resume with the same"
                " model configuration."
            )
        self.model.train_step = int(state.get("train_step", 0))
        self._averages = state.get("ema")
