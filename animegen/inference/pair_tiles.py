"""Pairs of frames in overlapping tiles, for frames that are too large for the memory in one piece."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from animegen.tasks.protocols import Interpolator

#: Part of a tile that it shares with its neighbour. Things may move by about this far from frame to frame: what leaves
#: a tile is not seen by it.
OVERLAP = 0.25


class TiledPair:
    """A pair of frames, encoded tile by tile; the frames between are blended of the tiles by raised cosines.

    Args:
        model: draws each tile.
        first: (1,3,H,W) in [-1,1].
        last: the same.
        tile: side of the tiles in pixels; 0: one piece.
    """

    def __init__(self, model: Interpolator, first: Tensor, last: Tensor, tile: int) -> None:
        self.model, self.shape, self.like = model, first.shape, first
        height, width = first.shape[-2:]
        rows = _places(height, tile)
        columns = _places(width, tile)
        self.boxes = [(top, bottom, left, right) for top, bottom in rows for left, right in columns]
        self.encoded: list[Any] = [
            model.encode_pair(*(frame[..., top:bottom, left:right].contiguous() for frame in (first, last)))
            for top, bottom, left, right in self.boxes
        ]

    def at(self, t: float) -> Tensor:
        """Return the frame at time t, (1,3,H,W)."""
        time = torch.tensor([t], device=self.like.device)
        if len(self.boxes) == 1:
            return self.model.synthesize(self.encoded[0], time)
        total = torch.zeros(self.shape, device=self.like.device)
        weights = torch.zeros(1, 1, *self.shape[-2:], device=self.like.device)
        for (top, bottom, left, right), encoded in zip(self.boxes, self.encoded, strict=True):
            weight = _window(bottom - top, top > 0, bottom < self.shape[-2], self.like.device)[:, None] * _window(
                right - left, left > 0, right < self.shape[-1], self.like.device
            )
            total[..., top:bottom, left:right] += weight * self.model.synthesize(encoded, time).float()
            weights[..., top:bottom, left:right] += weight
        return total / weights


def _places(length: int, tile: int) -> list[tuple[int, int]]:
    """Return where tiles begin and end, evenly spread, each sharing at least `OVERLAP` of it with the next."""
    if tile == 0 or length <= tile:
        return [(0, length)]
    count = 1 + math.ceil((length - tile) / (tile * (1 - OVERLAP)))
    starts = [round((length - tile) * n / (count - 1)) for n in range(count)]
    return [(start, start + tile) for start in starts]


def _window(length: int, rises: bool, falls: bool, device: torch.device) -> Tensor:
    """Return the weights of a tile along one side: from nearly 0 at an edge with a neighbour to 1."""
    ramp = max(1, round(length * OVERLAP))
    slope = 0.5 - 0.5 * torch.cos(math.pi * (torch.arange(ramp, device=device) + 0.5) / ramp)
    window = torch.ones(length, device=device)
    if rises:
        window[:ramp] = slope
    if falls:
        window[length - ramp :] = torch.minimum(window[length - ramp :], slope.flip(0))
    return window
