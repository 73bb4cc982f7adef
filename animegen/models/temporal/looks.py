"""Colour transfer between photos and several looks (styles of the training data)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.nn.colour import LinearColourTransfer


class LookColours:
    """Colour transfer of a batch whose samples have different looks.

    Args:
        maps: colour transfer of each look.
        looks: (B,) index of the look of each sample; ``None`` for the first one.
    """

    def __init__(self, maps: Sequence[LinearColourTransfer], looks: Tensor | None) -> None:
        self.maps, self.looks = maps, looks

    def observe(self, photos: Tensor, anime: Tensor) -> None:
        """Update the statistics of all looks with photos, and those of each look with its anime clips, (B,T,3,H,W)."""
        for number, colours in enumerate(self.maps):
            selected = anime if self.looks is None else anime[self.looks == number]
            colours.observe(photos.flatten(0, 1), selected.flatten(0, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """Map photos (B*n,3,H,W) in [-1,1], n in a row per sample, to the colours of their look."""
        return self._each(images, lambda colours: colours(images))

    def reverse(self, images: Tensor) -> Tensor:
        """Map anime (B*n,3,H,W) in [-1,1] to the colours of photos."""
        return self._each(images, lambda colours: colours.reverse(images))

    def _each(self, images: Tensor, change: Callable[[LinearColourTransfer], Tensor]) -> Tensor:
        out = change(self.maps[0])
        if self.looks is None:
            return out
        looks = self.looks.repeat_interleave(len(images) // len(self.looks)).view(-1, 1, 1, 1)
        for number, colours in enumerate(self.maps[1:], 1):
            out = torch.where(looks == number, change(colours), out)
        return out


def colours_of(maps: Sequence[LinearColourTransfer], batch: Mapping[str, Tensor]) -> LookColours:
    """Return the colour transfer for a batch, which has the entry ``look`` if there are several looks."""
    return LookColours(maps, batch.get("look") if len(maps) > 1 else None)


def check_looks(data: Any, looks: int) -> None:
    """Check that the model has as many looks as the data, or one for all of them.

    Raises:
        AnimegenError: if it has another number of looks.
    """
    shown = len(getattr(getattr(data, "train", None), "looks", ()))
    if shown > 1 and looks not in (1, shown):
        raise AnimegenError(f"The data have {shown} looks and the model has {looks}: set model.looks={shown}.")
