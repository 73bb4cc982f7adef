"""Inputs of the discriminators of the family."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from animegen.errors import AnimegenError


def smooth_of(batch: Mapping[str, Tensor]) -> Tensor:
    """Return the edge-smoothed anime images (B,3,H,W) of a batch.

    Raises:
        AnimegenError: if the batch has none.
    """
    if "smooth" not in batch:
        raise AnimegenError(
            "A loss term reads edge-smoothed images, but the data have none: set data.smooth=online, or give a folder"
            " of them."
        )
    return batch["smooth"]
