"""How reliably two frames can be matched: without a match, holding a drawing looks better than interpolation."""

from __future__ import annotations

import torch
from torch import Tensor

from animegen.media.images import to_float
from animegen.media.video.flow import DISFlow
from animegen.media.video.small import shrunk
from animegen.nn.warp import backward_warp

#: Longer side in pixels at which frames are matched.
_SIDE = 384
#: Flows there and back agree if their sum is shorter than this many pixels, and this share of their length (Sundaram et
#: al. 2010 use 0.01 of the squared lengths and 0.5 pixels squared).
_PIXELS, _SHARE = 1.0, 0.1
#: ... and their colours if they differ by less than this, on average over the channels, of a range of 2.
_COLOUR = 0.2


class Confidence:
    """The share of the image that two frames have in common, as far as classical optical flow (DIS) can tell."""

    def __init__(self) -> None:
        self.flow = DISFlow("fast")

    def __call__(self, first: Tensor, last: Tensor) -> float:
        """Return the share of pixels, 0 to 1, whose flow there and back agree and leads to the same colour.

        It is the smaller share of both directions. 1: everything has its place in both; near 0: they show different
        things.

        Args:
            first: uint8 ``(3,H,W)``.
            last: the same.
        """
        pair = [to_float(_small(frame)[None]) for frame in (first, last)]
        there, back = self.flow(pair[0], pair[1]), self.flow(pair[1], pair[0])
        return min(_agreement(pair[0], pair[1], there, back), _agreement(pair[1], pair[0], back, there))


def _agreement(first: Tensor, last: Tensor, there: Tensor, back: Tensor) -> float:
    returned = backward_warp(back, there)
    gap = (there + returned).norm(dim=1)
    length = there.norm(dim=1) + returned.norm(dim=1)
    colour = (first - backward_warp(last, there)).abs().mean(1)
    return float(((gap <= _PIXELS + _SHARE * length) & (colour <= _COLOUR)).float().mean())


def _small(frame: Tensor) -> Tensor:
    height, width = frame.shape[1:]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return frame
    image = shrunk(frame.numpy(), *(max(16, round(side * scale)) for side in (height, width)))
    return torch.from_numpy(image).permute(2, 0, 1)
