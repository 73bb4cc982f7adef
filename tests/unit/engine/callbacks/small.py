"""A model of one number and everything around it, for tests of callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from animegen.engine import AnimeModule, Objective, Term
from animegen.engine.callbacks import LogEvery, StopAfter
from animegen.engine.lightning import LightningAdapter


class Scaled(nn.Module):
    """Loss ``scale * mean(x)``: its gradient is known."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.mean()


class Small(AnimeModule):
    """Learns one weight, starting at 1; ``scores`` are what its validations say, in turn."""

    def __init__(self, scales: dict[str, float] | None = None, scores: Sequence[float] = (), **settings: Any) -> None:
        terms = {name: Term(Scaled(scale), reads={"x": "out"}) for name, scale in (scales or {"loss": 1.0}).items()}
        super().__init__(
            optimizers={"generator": lambda parameters: torch.optim.SGD(parameters, lr=0.1)},
            objectives={"generator": Objective(**terms)},
            **settings,
        )
        self.generator = nn.Linear(1, 1, bias=False)
        self.generator.weight.data.fill_(1.0)
        self.register_buffer("seen", torch.zeros(()))
        self.scores = list(scores)

    def updates(self, batch: dict[str, Tensor]) -> Iterator:
        self.seen += len(batch["x"])
        yield "generator", self.objectives["generator"](out=self.generator(batch["x"]))

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"score": torch.tensor(self.scores.pop(0))} if self.scores else {}


class Data(pl.LightningDataModule):
    """Batches of ones without end; a validation of one batch if wanted."""

    def __init__(self, validates: bool = False) -> None:
        super().__init__()
        self.validates = validates

    def train_dataloader(self) -> DataLoader:
        return DataLoader([{"x": torch.ones(1, 1)}] * 1000, batch_size=None)

    def val_dataloader(self) -> DataLoader | list:
        return DataLoader([{"x": torch.ones(1, 1)}], batch_size=None) if self.validates else []


def fit(model: Small, folder: Path, *callbacks: pl.Callback, steps: int = 6, val_every: int = 100, **more: Any) -> Any:
    """Train ``model`` for some steps; return the trainer."""
    logger = more.pop("logger", False)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        val_check_interval=val_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=logger,
        default_root_dir=str(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=[LogEvery(1), StopAfter(steps), *callbacks],
    )
    trainer.fit(LightningAdapter(model), Data(validates=bool(model.scores)), **more)
    return trainer
