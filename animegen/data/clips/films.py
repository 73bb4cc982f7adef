"""View of films: windows of consecutive frames, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from animegen.data.clips.sources import ClipSource
from animegen.data.clips.view import ClipView
from animegen.data.sampler import draw_integer
from animegen.errors import AnimegenError


class FilmView(ClipView):
    """Windows of consecutive frames: ``photo``, uint8 ``(T, 3, size, size)``, in crops of the frames' own scale.

    In training, the crop is the one of several at random places that changes most, so that people and cars are not
    rare.
    Args:
        clips: source of the clips, with frames of at least ``size``; smaller ones are enlarged.
        length: T, at least 3; no clip may be shorter.
        size: side of the crops.
        windows: number of places of which the one with the largest change is taken.
        seed: seed of order, windows and places.
        shuffle: see :class:`~animegen.data.views.View`.

    Raises:
        AnimegenError: for invalid values.
    """

    def __init__(
        self,
        clips: ClipSource,
        length: int = 6,
        size: int = 128,
        windows: int = 3,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if length < 3 or windows < 1:
            raise AnimegenError(
                f"FilmView needs windows of at least 3 frames at at least 1 place, not length={length} and"
                f" windows={windows}: correct them."
            )
        super().__init__(clips, size, gap=length - 1, middle="all", seed=seed, shuffle=shuffle)
        self.length, self.windows = length, windows

    @property
    def sources(self) -> dict[str, Any]:
        """The source by batch key."""
        return {"photo": self.clips}

    @property
    def aligned(self) -> list[list[str]]:
        """Batch keys that are augmented alike."""
        return [["photo"]]

    def _sample(self, index: int, number: int | None) -> dict[str, Tensor] | None:
        sample = super()._sample(index, number)
        if sample is None:
            return None
        return {"photo": torch.cat([sample["first"][None], sample["truth"], sample["last"][None]])}

    def _cut(self, frames: Tensor, number: int | None) -> Tensor:
        if min(frames.shape[-2:]) < self.size:
            return super()._cut(frames, number)
        free = [side - self.size for side in frames.shape[-2:]]
        if number is None:
            places = [[length // 2 for length in free]]
        else:
            places = [
                [draw_integer(length + 1, self.seed, axis, n, number) for length, axis in zip(free, "yx", strict=True)]
                for n in range(self.windows)
            ]
        crops = [frames[..., top : top + self.size, left : left + self.size] for top, left in places]
        return max(crops, key=lambda crop: float((crop[-1].float() - crop[0].float()).abs().mean())).contiguous()
