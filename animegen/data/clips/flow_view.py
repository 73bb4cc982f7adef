"""View for frame interpolation with a flow prior: crops of large frames, with the optical flow between the pair."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.clips.truth import Box
from animegen.data.clips.view import ClipView
from animegen.data.sampler import draw_integer
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import flow_estimates

#: Samples of a block, see ``reuse``.
_BLOCK = 64


class FlowView(ClipView):
    """Training pairs as of :class:`ClipView`, in crops of the frames' own scale, with ``flow`` and ``second_flow``.

    These are two estimates of the flow, see :func:`~animegen.media.video.flow.flow_estimates`, float32
    ``(4, size, size)`` in pixels, from ``first`` to ``last``, then from ``last`` to ``first``. They are estimated in
    the process that loads the data. Leave a margin: crops of ``size`` are cropped again by the augmentation, and flow
    is less reliable at the border.

    Args:
        clips: source of the clips, frames with sides of at least ``size``; smaller ones are enlarged.
        size: side of the crops.
        shrink: crops are scaled by a factor from [shrink, 1], as far as the frames are large enough.
        windows: number of places that are compared, of which the one with the largest change is taken.
        reuse: number of times that a sample is used before the next ones are read, each time with another crop by the
            augmentation: reading and flow cost as much as a small network.
        settings: see :class:`ClipView`. With ``exact_flow`` no flow is estimated.

    Raises:
        AnimegenError: for invalid values.
    """

    def __init__(
        self, clips: Any, size: int = 256, shrink: float = 0.6, windows: int = 3, reuse: int = 1, **settings: Any
    ) -> None:
        super().__init__(clips, size, **settings)
        if not 0 < shrink <= 1 or min(windows, reuse) < 1 or not self.shuffle:
            raise AnimegenError(
                "FlowView is for training and needs shrink from above 0 to 1, and windows and reuse of at least 1, not"
                f" shrink={shrink}, windows={windows} and reuse={reuse}."
            )
        self.shrink, self.windows, self.reuse = shrink, windows, reuse
        self._latest: dict[int, dict[str, Tensor]] = {}

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return a sample. Blocks of samples follow each other ``reuse`` times, so that a batch has different ones."""
        if self.reuse == 1:
            return super().__getitem__(number)
        place = number // (_BLOCK * self.reuse) * _BLOCK + number % _BLOCK
        if place not in self._latest:
            self._latest = {key: kept for key, kept in self._latest.items() if key // _BLOCK == place // _BLOCK}
            self._latest[place] = super().__getitem__(place)
        return self._latest[place] | {"sample": torch.tensor(number)}

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the latest samples when the view is sent to a worker."""
        return {**self.__dict__, "_latest": {}}

    def _sample(self, index: int, number: int | None) -> dict[str, Tensor] | None:
        sample = super()._sample(index, number)
        if sample is None or self.exact_flow:
            return sample
        first, last = (to_float(sample[name][None]) for name in ("first", "last"))
        flow, second = flow_estimates(first, last)[0]
        return sample | {"flow": flow, "second_flow": second}

    def _cut(self, frames: Tensor, number: int | None) -> Tensor:
        top, left, side = self._best(frames, number)
        crop = frames[..., top : top + side, left : left + side]
        if side == self.size:
            return crop.contiguous()
        return F.interpolate(crop, (self.size, self.size), mode="bilinear", antialias=True)

    def _box(self, frames: Tensor, number: int | None) -> Box:
        top, left, side = self._best(frames, number)
        return Box(top, left, side, side)

    def _best(self, frames: Tensor, number: int | None) -> tuple[int, int, int]:
        """Return the upper left corner and the side of the window with the largest change."""
        short = min(frames.shape[-2:])
        share = 1.0 if number is None else draw_integer(2**16, self.seed, "scale", number) / 2**16
        side = min(short, round(self.size / (self.shrink + (1 - self.shrink) * share)))
        places = [(number, place) for place in range(self.windows)] if number is not None else [(None, 0)]
        corners = [self._window(frames, side, *place) for place in places]
        change = (frames[0, 1].float() - frames[1, 1].float()).abs()
        top, left = max(corners, key=lambda at: float(change[at[0] : at[0] + side, at[1] : at[1] + side].mean()))
        return top, left, side

    def _window(self, frames: Tensor, side: int, number: int | None, place: int) -> tuple[int, int]:
        free = [length - side for length in frames.shape[-2:]]
        if number is None:
            return free[0] // 2, free[1] // 2
        top, left = (
            draw_integer(length + 1, self.seed, axis, place, number)
            for length, axis in zip(free, ("top", "left"), strict=True)
        )
        return top, left
