"""Colours of several looks: photos are brought near to those of the look that a sample is drawn in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.nn.colour import LinearColourTransfer


class LookColours:
    """The colour transfers of all looks, each for the samples of its look.

    Args:
        maps: one for each look.
        looks: (B,) number of the look of each sample; ``None``: all have the first.
    """

    def __init__(self, maps: Sequence[LinearColourTransfer], looks: Tensor | None) -> None:
        self.maps, self.looks = maps, looks

    def observe(self, photos: Tensor, anime: Tensor) -> None:
        """Take clips (B,T,3,H,W) into account, those of anime for the map of their look."""
        for number, colours in enumerate(self.maps):
            shown = anime if self.looks is None else anime[self.looks == number]
            colours.observe(photos.flatten(0, 1), shown.flatten(0, 1))

    def __call__(self, images: Tensor) -> Tensor:
        """Map photos (B*n,3,H,W) in [-1,1], n in a row for each sample, to the colours of their look."""
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
    """Return the colour transfers for the samples of a batch, which says their ``look`` where there are several."""
    return LookColours(maps, batch.get("look") if len(maps) > 1 else None)


def check_looks(data: Any, looks: int) -> None:
    """Check that a model tells the colours of all looks of the data apart, or (``looks=1``) of none.

    Raises:
        AnimegenError: if it knows another number of looks.
    """
    shown = len(getattr(getattr(data, "train", None), "looks", ()))
    if shown > 1 and looks not in (1, shown):
        raise AnimegenError(f"The data have {shown} looks and the model has {looks}: set model.looks={shown}.")
