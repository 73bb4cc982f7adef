"""Run a convolutional network tile by tile with the result of the whole picture.

Cutting a large picture into tiles saves memory, but normalisation layers that look at the whole
picture (instance norm, layer norm) then see other statistics in every tile, and the tiles differ
in tone. Here they do not: the network is recorded once as a list of steps, and all tiles walk
through the list together. At each normalisation they

1. combine the sums over their core regions to the mean and variance of the whole picture, and
2. copy what their neighbours computed into their halos, the margins around the cores.

Between two normalisations one tile computes after the other (on a CPU, one per core at a time), so
the workspace (padded copies, wide intermediate maps) is that of few tiles. What waits is exactly
what later steps need, and because of 2. the halo only has to cover the reach of the layers between
two normalisations, some pixels, not the receptive field of the network.

At the borders of the picture the windows end exactly at the border, so the network's own padding
happens where it does without tiles. At inner borders padding is wrong, and stays in the halo.
"""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from animegen.nn.norm import mean_and_variance
from animegen.tiling.receptive_field import Reach, inference, map_stride, measure_reach
from animegen.tiling.recorder import Call, Slot, Statistics, Tape, TilingError, record

Network = Callable[[Tensor], Tensor]

#: Largest difference between tiled and untiled output on noise, for a network that is not chaotic.
TOLERANCE = 1e-3


def tiled(
    network: Network,
    images: Tensor,
    tile: int = 512,
    halo: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return ``network(images)``, computed in tiles: the same up to rounding, in less memory.

    Args:
        network: maps ``(B,C,H,W)`` to the same shape, in eval mode. Its attribute ``size_divisor``
            (default 1) divides H and W. With ``tileable = False`` it always runs on whole pictures.
        images: ``(B,C,H,W)``, on the network's device.
        tile: largest side of a tile's core in pixels; 0, or at least the picture's size: no tiles.
        halo: margin around each core in pixels; ``None`` takes what the network needs.
        dtype: run under autocast to this type, e.g. ``torch.bfloat16``; ``None`` runs as it is.

    Returns:
        ``(B,C,H,W)`` of the type of ``images``, without gradient.

    Raises:
        ValueError: if H or W is no multiple of ``factor``, or the network is in training mode.

    Warns:
        UserWarning: if the network cannot be tiled; then it ran on the whole picture.
    """
    factor = getattr(network, "size_divisor", 1)
    height, width = images.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"the picture is {width}x{height} pixels, but the network needs multiples of {factor}")
    if getattr(network, "training", False):
        raise ValueError("the network is in training mode; call eval() before running it in tiles")
    if tile > 0 and max(height, width) > tile:
        try:
            reach = tileable(network, images.shape[1], images.device, dtype)
        except TilingError as reason:
            warnings.warn(f"The picture is not cut into tiles: {reason}.", stacklevel=2)
        else:
            margin = reach.radius if halo is None else halo
            grid = _Grid.cut(height, width, tile, math.ceil(margin / factor) * factor, factor)
            return _play(network, reach.tape, images, grid, dtype)
    with inference(images.device, dtype):
        return network(images).to(images.dtype)


def tileable(
    network: Network,
    channels: int = 3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Reach:
    """Return how far a network looks, after a proof on a small picture that tiles give its result.

    The answer is remembered for as long as the network object lives; its weights may change in
    place, but not be exchanged for others. Arguments as for :func:`~animegen.tiling.receptive_field.measure_reach`.

    Raises:
        TilingError: if it cannot run in tiles.
    """
    device = torch.device(device)
    known = _known.setdefault(network, {})
    key = (channels, device.type, dtype)
    if key not in known:
        try:
            known[key] = measure_reach(network, channels, device, dtype)
            _prove(network, channels, device)
        except TilingError as reason:
            known[key] = str(reason)
        except RuntimeError as error:
            known[key] = f"the network fails on small pictures ({' '.join(str(error).split())[:120]})"
    found = known[key]
    if isinstance(found, str):
        raise TilingError(found)
    return found


_known: weakref.WeakKeyDictionary[Network, dict[tuple, Reach | str]] = weakref.WeakKeyDictionary()


def _prove(network: Network, channels: int, device: torch.device) -> None:
    """Compare both ways on noise; it tells on networks for which a pixel depends on its position.

    Some networks multiply the smallest difference. They are recognised by what a small change of
    the input does to them.
    """
    reach = measure_reach(network, channels, device)
    factor = getattr(network, "size_divisor", 1)
    halo = math.ceil(reach.radius / factor) * factor
    tile = max(16 * factor, 2 * halo, 64)
    tile = math.ceil(tile / factor) * factor
    generator = torch.Generator().manual_seed(0)
    size = (1, channels, max(math.ceil(64 / factor), 8) * factor, 2 * tile)
    images = torch.rand(size, generator=generator) * 2 - 1
    nearly = (images + 1e-5 * torch.randn(size, generator=generator)).to(device)
    images = images.to(device)
    grid = _Grid.cut(size[2], size[3], tile, halo, factor)
    with inference(device, None):
        whole = network(images)
        sensitivity = float((network(nearly) - whole).abs().max())
    difference = float((_play(network, reach.tape, images, grid, None) - whole).abs().max())
    if not difference <= max(TOLERANCE, 10 * sensitivity):
        raise TilingError(
            f"a pixel depends on its position or on the picture's size (tiles differ by {difference:.2g})"
        )


# --- geometry ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels of the picture; ``bottom`` and ``right`` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    def __and__(self, other: _Box) -> _Box | None:
        top, bottom = max(self.top, other.top), min(self.bottom, other.bottom)
        left, right = max(self.left, other.left), min(self.right, other.right)
        return _Box(top, bottom, left, right) if top < bottom and left < right else None

    def of(self, x: Tensor, outer: _Box, stride: int = 1) -> Tensor:
        """Return the part of ``x`` that this box covers; ``x`` covers ``outer`` at 1/stride of the resolution."""
        rows = slice((self.top - outer.top) // stride, (self.bottom - outer.top) // stride)
        columns = slice((self.left - outer.left) // stride, (self.right - outer.left) // stride)
        return x[..., rows, columns]


@dataclass(frozen=True)
class _Grid:
    """Cores, which partition the picture, and windows of one size around them; all borders divide by ``factor``."""

    picture: _Box
    cores: list[_Box]
    windows: list[_Box]
    factor: int
    borrowed: list[tuple[int, int, _Box]]
    """(tile, neighbour, box): the part of the tile's halo that lies in the neighbour's core."""

    @classmethod
    def cut(cls, height: int, width: int, tile: int, halo: int, factor: int) -> _Grid:
        rows, columns = _cut(height, tile, halo, factor), _cut(width, tile, halo, factor)
        cores = [_Box(*row, *column) for row, _ in rows for column, _ in columns]
        windows = [_Box(*row, *column) for _, row in rows for _, column in columns]
        borrowed = [
            (i, j, box)
            for i, window in enumerate(windows)
            for j, core in enumerate(cores)
            if i != j and (box := window & core) is not None
        ]
        return cls(_Box(0, height, 0, width), cores, windows, factor, borrowed)

    def stride(self, x: Tensor) -> int:
        """Return how many pixels one position of the map ``x`` of a window stands for."""
        window = self.windows[0]
        stride = map_stride(window.bottom - window.top, x.shape[-2], self.factor)
        if stride != map_stride(window.right - window.left, x.shape[-1], self.factor):
            raise TilingError("the network scales height and width differently")
        return stride


def _cut(length: int, tile: int, halo: int, factor: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Cut a side into near-equal cores of at most ``tile`` pixels; return (core, window) for each.

    All windows have one size, those at the ends reach further inside: tensors of one size are
    easier on the memory allocator, and one recording fits them all.
    """
    units, largest = length // factor, max(tile // factor, 2)
    count = math.ceil(units / largest)
    cores = list(pairwise(units * i // count * factor for i in range(count + 1)))
    size = min(max(end - start for start, end in cores) + 2 * halo, length)
    starts = [min(max(start - halo, 0), length - size) for start, _ in cores]
    return [(core, (start, start + size)) for core, start in zip(cores, starts, strict=True)]


# --- all tiles walk through the steps together -----------------------------------------------------------

_Moments = tuple[int, Tensor, Tensor]
"""Number of values, their mean, and the sum of their squared deviations from it."""


def _play(network: Network, tape: Tape | None, images: Tensor, grid: _Grid, dtype: torch.dtype | None) -> Tensor:
    output = torch.empty_like(images)
    windows = [window.of(images, grid.picture) for window in grid.windows]
    with inference(images.device, dtype), _crew(images.device, dtype, len(windows)) as for_all:
        if tape is None:
            # Its steps depend on the size: record them for the size of our windows.
            tape, _ = record(network, windows[0], mean_and_variance)
        steps = tape.steps
        waiting: list[dict[Slot, Tensor]] = [{tape.input: window} for window in windows]
        begin = 0
        for end, step in enumerate(steps):
            if isinstance(step, Statistics):
                _meet(step, waiting, for_all(partial(_arrive, steps[begin:end], step, waiting, grid)), grid)
                begin = end + 1
        for_all(partial(_finish, steps[begin:], tape.output, waiting, grid, output))
    return output


@contextmanager
def _crew(device: torch.device, dtype: torch.dtype | None, count: int) -> Iterator[Callable[[Callable], list]]:
    """Give a function that calls ``job(i)`` for all ``count`` tiles and returns the results in order.

    On a CPU every core takes one tile at a time. Sharing the single operations of a tile among
    the cores, as torch does by itself, would make them wait for each other after each of the many
    small operations. While the crew works, torch's number of threads is 1; afterwards as before.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or count == 1:
        yield lambda job: [job(i) for i in range(count)]
        return

    def alone(job: Callable[[int], object], i: int) -> object:
        with inference(device, dtype):  # holds for the thread that enters it
            return job(i)

    try:
        with ThreadPoolExecutor(min(threads, count), "tile", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda job: list(pool.map(partial(alone, job), range(count)))
    finally:
        torch.set_num_threads(threads)


def _arrive(
    steps: list[Call | Statistics], step: Statistics, waiting: list[dict[Slot, Tensor]], grid: _Grid, i: int
) -> _Moments:
    """Bring tile ``i`` to a normalisation; return the moments of its core."""
    _advance(steps, waiting[i])
    x = waiting[i][step.x]
    return _moments(grid.cores[i].of(x, grid.windows[i], grid.stride(x)), step.dims)


def _finish(
    steps: list[Call | Statistics], result: Slot, waiting: list[dict[Slot, Tensor]], grid: _Grid, output: Tensor, i: int
) -> None:
    """Bring tile ``i`` to the end, and its core to its place in the output."""
    _advance(steps, waiting[i])
    core, window = grid.cores[i], grid.windows[i]
    core.of(output, grid.picture).copy_(core.of(waiting[i][result], window))
    waiting[i].clear()


def _advance(steps: list[Call | Statistics], values: dict[Slot, Tensor]) -> None:
    for step in steps:
        assert isinstance(step, Call)
        step.run(values)


def _meet(step: Statistics, waiting: list[dict[Slot, Tensor]], parts: list[_Moments], grid: _Grid) -> None:
    """Give all tiles the statistics of the whole picture, and their halos what the neighbours computed."""
    mean, variance = _combined(parts)
    maps = [values[step.x] for values in waiting]
    stride = grid.stride(maps[0])
    for i, j, box in grid.borrowed:
        box.of(maps[i], grid.windows[i], stride).copy_(box.of(maps[j], grid.windows[j], stride))
    for values in waiting:
        values[step.mean], values[step.variance] = mean, variance
        for slot in step.frees:
            values.pop(slot, None)


def _moments(x: Tensor, dims: tuple[int, ...]) -> _Moments:
    # Two passes: the difference of the mean square and the squared mean would cancel.
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    mean = x.mean(dims, keepdim=True)
    return x.numel() // mean.numel(), mean, (x - mean).square_().sum(dims, keepdim=True)


def _combined(parts: list[_Moments]) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of the union of the parts (Chan, Golub, LeVeque 1979), added up in float64."""
    device, dtype = parts[0][1].device, parts[0][1].dtype
    # MPS has no float64; the numbers are few, so the CPU can do it.
    home = torch.device("cpu") if device.type == "mps" else device
    total = sum(count for count, _, _ in parts)
    share = torch.tensor([count / total for count, _, _ in parts], dtype=torch.float64, device=home)
    means = torch.stack([mean for _, mean, _ in parts], -1).to(home).double()
    inside = torch.stack([squares for _, _, squares in parts], -1).to(home).double().sum(-1) / total
    mean = (share * means).sum(-1)
    between = (share * (means - mean[..., None]).square()).sum(-1)
    return mean.to(dtype).to(device), (inside + between).to(dtype).to(device)
