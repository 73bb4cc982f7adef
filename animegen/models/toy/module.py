"""A complete model in a few lines: template for new families, and load of ``animegen bench model=toy``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.tasks.stylize import StyliseModule


class Toy(StyliseModule):
    """Supervised photo to anime translation.

    Args:
        generator: maps photos to anime images.
        **settings: optimizers, objectives and others, see :class:`~animegen.engine.module.AnimeModule`.
    """

    needs_pairs = True

    def __init__(self, generator: nn.Module, **settings: Any) -> None:
        super().__init__(**settings)
        self.generator = generator

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the update of the generator."""
        fake = self.generator(batch["photo"])
        yield "generator", self.objectives["generator"](fake=fake, anime=batch["anime"])
