"""What the discriminators of the family judge."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from animegen.errors import AnimegenError


def smooth_of(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the edge-smoothed anime (B,3,H,W) of a batch.

    Raises:
        AnimegenError: if the data have none.
    """
    if "smooth" not in batch:
        raise AnimegenError(
            "A loss term judges edge-smoothed pictures, but the data have none: set data.smooth=online, or give"
            " ready-made ones."
        )
    return batch["smooth"]
