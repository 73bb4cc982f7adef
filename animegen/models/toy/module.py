"""A whole model on one page: the pattern for a new family, and the load of ``animegen bench model=toy``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from animegen.engine.module import Updates
from animegen.tasks.stylize import StyliseModule


class Toy(StyliseModule):
    """Learn photo to anime from pairs.

    Args:
        generator: network from photo to anime.
        settings: optimizers, objectives ..., see :class:`~animegen.engine.module.AnimeModule`.
    """

    needs_pairs = True

    def __init__(self, generator: nn.Module, **settings: Any) -> None:
        super().__init__(**settings)
        self.generator = generator

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield the one update of a step."""
        fake = self.generator(batch["photo"])
        yield "generator", self.objectives["generator"](fake=fake, anime=batch["anime"])
