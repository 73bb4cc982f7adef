"""Geometry of tiles: cores that partition an image, and windows that extend them by a halo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the image; ``bottom`` and ``right`` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, x: Tensor, outer: Box, stride: int = 1) -> Tensor:
        """Return the view of ``x`` that this box covers; ``x`` covers ``outer`` at 1/stride of the resolution."""
        rows = slice((self.top - outer.top) // stride, (self.bottom - outer.top) // stride)
        columns = slice((self.left - outer.left) // stride, (self.right - outer.left) // stride)
        return x[..., rows, columns]


class Axis:
    """One side of an image in near-equal cores of at most ``tile`` pixels, and windows of one size around them.

    All windows have one size (those at the ends extend further inwards), so that one graph fits them all and the
    memory allocator sees few sizes. All bounds are multiples of ``divisor``.
    """

    def __init__(self, length: int, tile: int, halo: int, divisor: int) -> None:
        units = length // divisor
        count = math.ceil(units / max(tile // divisor, 2))
        self.cores = list(pairwise(units * i // count * divisor for i in range(count + 1)))
        halo = math.ceil(halo / divisor) * divisor
        size = min(max(end - start for start, end in self.cores) + 2 * halo, length)
        starts = [min(max(start - halo, 0), length - size) for start, _ in self.cores]
        self.windows = [(start, start + size) for start in starts]
        #: For each window the cores that it overlaps: (number of the core, start and end of the overlap).
        self.overlaps = [
            [
                (j, max(start, left), min(end, right))
                for j, (left, right) in enumerate(self.cores)
                if left < end and start < right
            ]
            for start, end in self.windows
        ]


class Grid:
    """The tiles of an image, numbered row by row.

    Args:
        height: height of the image in pixels, a multiple of ``divisor``.
        width: width of the image, likewise.
        tile: largest side of a core in pixels.
        halo: margin around a core in pixels, rounded up to a multiple of ``divisor``.
        divisor: all bounds are multiples of it.
    """

    def __init__(self, height: int, width: int, tile: int, halo: int, divisor: int) -> None:
        self.rows, self.columns = (Axis(side, tile, halo, divisor) for side in (height, width))
        self.image, self.divisor = Box(0, height, 0, width), divisor
        self.cores = [Box(*row, *column) for row in self.rows.cores for column in self.columns.cores]
        self.windows = [Box(*row, *column) for row in self.rows.windows for column in self.columns.windows]

    def sources(self, tile: int) -> Iterator[tuple[int, Box]]:
        """Yield the tiles whose cores a window overlaps, including its own, and the overlaps."""
        row, column = divmod(tile, len(self.columns.cores))
        for i, top, bottom in self.rows.overlaps[row]:
            for j, left, right in self.columns.overlaps[column]:
                yield i * len(self.columns.cores) + j, Box(top, bottom, left, right)
