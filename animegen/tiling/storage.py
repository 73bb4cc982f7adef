"""Feature maps of whole images, in memory up to a limit and in a temporary file beyond it."""

from __future__ import annotations

import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.tiling.grid import Box, Grid


def temporary_folder() -> Path:
    """Return where large temporary files go: ``TMPDIR`` if it is set, else ``/var/tmp``, which is on a disk."""
    if os.environ.get("TMPDIR"):
        return Path(os.environ["TMPDIR"])
    return Path("/var/tmp") if os.access("/var/tmp", os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class Budget:
    """Counts the bytes of feature maps that are kept in memory."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, size: int) -> bool:
        """Reserve ``size`` bytes, if as many are left."""
        fits = size <= self.left
        self.left -= size if fits else 0
        return fits

    def give_back(self, size: int) -> None:
        """Release ``size`` bytes."""
        self.left += size


class FeatureMap:
    """A feature map of the whole image.

    A map that does not fit into the budget goes to an unnamed file in :func:`temporary_folder`, as the cores of its
    tiles. No object is kept per tile: between the large temporary tensors of tiles it would fragment the heap, which
    would then grow with the number of tiles.

    Args:
        grid: the tiles.
        like: a window of the map: shape, strides, type and device.
        stride: pixels of the image per position of the map.
        budget: the memory budget.
    """

    def __init__(self, grid: Grid, like: Tensor, stride: int, budget: Budget) -> None:
        self.grid, self.like, self.stride, self.budget = grid, like, stride, budget
        strides = like.stride()
        #: Dimensions from the slowest to the fastest in memory.
        self._order = sorted(range(like.ndim), key=lambda dim: (-strides[dim], dim))
        self.nbytes = self._size(grid.image)
        self._memory: Tensor | None = None
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        if budget.take(self.nbytes):
            data = torch.empty(self.nbytes, dtype=torch.uint8, device=like.device)
            self._memory = self._shaped(data, grid.image)
        else:
            self._block = max(map(self._size, grid.cores))
            with explained():
                self._file = tempfile.TemporaryFile(dir=temporary_folder())  # noqa: SIM115

    def write(self, tile: int, window: Tensor) -> None:
        """Store the core of a tile, given its window."""
        core = self.grid.cores[tile]
        values = core.of(window, self.grid.windows[tile], self.stride)
        if self._memory is not None:
            core.of(self._memory, self.grid.image, self.stride).copy_(values)
            return
        data = torch.empty(self._size(core), dtype=torch.uint8)
        self._shaped(data, core).copy_(values)
        assert self._file is not None
        with self._lock, explained():
            self._file.seek(tile * self._block)
            self._file.write(data.numpy().data)
            self._file.flush()

    def window(self, tile: int) -> Tensor:
        """Return the window of a tile."""
        outer = self.grid.windows[tile]
        window = self._shaped(torch.empty(self._size(outer), dtype=torch.uint8, device=self.like.device), outer)
        if self._memory is not None:
            return window.copy_(outer.of(self._memory, self.grid.image, self.stride))
        for source, box in self.grid.sources(tile):
            core = self.grid.cores[source]
            # Mapped, so that only the part in the window is read; copy-on-write, since torch wants it writable.
            file: Any = self._file
            data = np.memmap(file, np.uint8, "c", source * self._block, (self._size(core),))
            values = box.of(self._shaped(torch.from_numpy(data), core), core, self.stride)
            box.of(window, outer, self.stride).copy_(values)
        return window

    def close(self) -> None:
        """Forget the map."""
        if self._memory is not None:
            self._memory = None
            self.budget.give_back(self.nbytes)
        elif self._file is not None:
            self._file.close()

    def _shape(self, box: Box) -> list[int]:
        height, width = (box.bottom - box.top) // self.stride, (box.right - box.left) // self.stride
        return [*self.like.shape[:-2], height, width]

    def _size(self, box: Box) -> int:
        return math.prod(self._shape(box)) * self.like.dtype.itemsize

    def _shaped(self, data: Tensor, box: Box) -> Tensor:
        """View bytes as the part of the map in a box, with the order of dimensions that a window has in memory."""
        shape = self._shape(box)
        dense = data.view(self.like.dtype).view([shape[dim] for dim in self._order])
        return dense.permute([self._order.index(dim) for dim in range(len(shape))])


@contextmanager
def explained() -> Iterator[None]:
    """Turn errors of the file system into a sentence."""
    try:
        yield
    except OSError as error:
        raise AnimegenError(
            f"intermediate results cannot be written to '{temporary_folder()}' ({error.strerror}): free space there,"
            " set the environment variable TMPDIR to another folder, or set max_side= to scale the image down"
        ) from error
