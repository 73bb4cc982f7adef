"""The acceleration of the motion between two frames, known from the frames before and after them.

A pixel that moves with a constant acceleration is not half-way at half time. Three of its positions determine the
parabola on which it moves (Quadratic Video Interpolation, Xu et al. 2019).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Pixels: half of an acceleration of this length counts, nearly all of one twice as long, nearly nothing of one half as
#: long. Those that follow from the errors of DIS flow are smaller.
_NOISE = 1.0


class Adjacent(NamedTuple):
    """The motion from a frame of a pair to the frame on its other side.

    Attributes:
        flow: (B,2,H,W) in pixels, on the grid of the frame of the pair.
        confidence: (B,1,H,W) in [0,1], of this flow.
        length: the time of the motion, in units of the time between both frames of the pair.
    """

    flow: Tensor
    confidence: Tensor
    length: float


def acceleration(flow: Tensor, confidence: Tensor, before: Adjacent | None, after: Adjacent | None) -> Tensor:
    """Return the acceleration (B,4,H,W) of the pixels of the first and of the last frame.

    With x(0) = 0, x(1) = f and x(-r) = b it is a = 2 (r f + b) / (r (1 + r)), so f + b for r = 1. It is multiplied with
    the confidence of both flows, and with |a|^4 / (|a|^4 + 1), since small ones are errors of the flow; 0 where the
    frame on the other side is unknown.

    Args:
        flow: (B,4,H,W) in pixels, from first to last, then from last to first.
        confidence: (B,2,H,W) in [0,1], of each direction.
        before: the motion from the first frame to that before it.
        after: the motion from the last frame to that after it.

    Returns:
        The second derivative of the position, in pixels and units of the time between both frames, on the grid of the
        first, then on that of the last frame.
    """
    parts = []
    for there, known, other in zip(flow.split(2, 1), confidence.split(1, 1), (before, after), strict=True):
        if other is None:
            parts.append(torch.zeros_like(there))
            continue
        r = other.length
        found = (r * there + other.flow) * (2 / (r * (1 + r)))
        size = found.square().sum(1, keepdim=True).square()
        parts.append(known * other.confidence * size / (size + _NOISE**4) * found)
    return torch.cat(parts, 1)
