"""Run a convolutional network tile by tile with the result of the whole picture.

Cutting a large picture into tiles saves memory, but normalisation layers that look at the whole
picture (instance norm, layer norm) then see other statistics in every tile, and the tiles differ
in tone. Here they do not: every tile runs the ordinary forward pass in a thread of its own, and at
each normalisation layer all tiles meet. There they

1. combine the sums over their core regions to the mean and variance of the whole picture, and
2. copy what their neighbours computed into their halos, the margins around the cores.

Then they go on to the next layer. Only one thread computes at a time, so the workspace (padded
copies, convolution buffers) is that of one tile; what waits is one tile's share of the activations
each. Because of step 2 the halo only has to cover the reach of the layers between two
normalisations, some pixels, not the receptive field of the network.

At the borders of the picture tiles begin exactly at the border, so the network's own padding
happens where it does without tiles. At inner borders padding is wrong, and stays in the halo.
"""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from animegen.nn.norm import shared_statistics

Network = Callable[[Tensor], Tensor]


class NotTileable(ValueError):
    """The network cannot run in tiles with an exact result; the text says why."""


@dataclass(frozen=True)
class Reach:
    """How far the layers of a network look.

    Attributes:
        radius: pixels of the input by which a value can lie from what it depends on, counted from
            the last normalisation over the whole picture (from the input, where there is none).
        normalisations: number of normalisations over the whole picture in one forward pass.
    """

    radius: int
    normalisations: int


def tiled(
    network: Network,
    images: Tensor,
    tile: int = 512,
    halo: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Return ``network(images)``, computed in tiles: the same up to rounding, in less memory.

    Args:
        network: maps ``(B,3,H,W)`` to the same shape, in eval mode. Its attribute ``factor``
            (default 1) divides H and W. With ``tileable = False`` it always runs on whole pictures.
        images: ``(B,3,H,W)``, on the network's device.
        tile: largest side of a tile's core in pixels; 0, or at least the picture's size: no tiles.
        halo: margin around each core in pixels; ``None`` measures what the network needs.
        dtype: run under autocast to this type, e.g. ``torch.bfloat16``; ``None`` runs as it is.

    Returns:
        ``(B,3,H,W)`` of the type of ``images``, without gradient.

    Raises:
        ValueError: if H or W is no multiple of ``factor``, or the network is in training mode.

    Warns:
        UserWarning: if the network cannot be tiled; then it ran on the whole picture.
    """
    factor = getattr(network, "factor", 1)
    height, width = images.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"the picture is {width}x{height} pixels, but the network needs multiples of {factor}")
    if getattr(network, "training", False):
        raise ValueError("the network is in training mode; call eval() before running it in tiles")
    if tile <= 0 or max(height, width) <= tile:
        return _forward(network, images, dtype)
    try:
        reach = measure_reach(network, images.shape[1], images.device, dtype)
    except NotTileable as reason:
        warnings.warn(f"The picture is not cut into tiles: {reason}.", stacklevel=2)
        return _forward(network, images, dtype)
    margin = reach.radius if halo is None else halo
    grid = _Grid.cut(height, width, tile, math.ceil(margin / factor) * factor, factor)
    output = torch.empty_like(images)
    if reach.normalisations:
        _run_together(network, images, output, grid, dtype)
    else:
        for index in range(len(grid.cores)):
            grid.put(index, output, _forward(network, grid.take(index, images), dtype))
    return output


def _forward(network: Network, images: Tensor, dtype: torch.dtype | None) -> Tensor:
    with _inference(images.device, dtype):
        return network(images).to(images.dtype)


@contextmanager
def _inference(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """No gradients, and autocast if asked for. Both are per thread, so every tile enters this."""
    with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        yield


# --- geometry ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Box:
    """A rectangle in pixels of the picture; ``bottom`` and ``right`` are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    def __and__(self, other: _Box) -> _Box | None:
        box = _Box(
            max(self.top, other.top),
            min(self.bottom, other.bottom),
            max(self.left, other.left),
            min(self.right, other.right),
        )
        return box if box.top < box.bottom and box.left < box.right else None

    def within(self, outer: _Box, x: Tensor, stride: int = 1) -> Tensor:
        """Return the view of ``x``, a map that covers ``outer`` at 1/stride resolution, for this box."""
        rows = slice((self.top - outer.top) // stride, (self.bottom - outer.top) // stride)
        columns = slice((self.left - outer.left) // stride, (self.right - outer.left) // stride)
        return x[..., rows, columns]


@dataclass(frozen=True)
class _Grid:
    """Cores, which partition the picture, and the tiles around them; all borders divide by ``factor``."""

    picture: _Box
    cores: list[_Box]
    tiles: list[_Box]
    factor: int
    borrowed: list[tuple[int, int, _Box]]
    """(tile, neighbour, box): the part of the tile's halo that lies in the neighbour's core."""

    @classmethod
    def cut(cls, height: int, width: int, tile: int, halo: int, factor: int) -> _Grid:
        picture = _Box(0, height, 0, width)
        rows, columns = _cuts(height, tile, factor), _cuts(width, tile, factor)
        cores = [_Box(*row, *column) for row in pairwise(rows) for column in pairwise(columns)]
        tiles = [
            _Box(
                max(core.top - halo, 0),
                min(core.bottom + halo, height),
                max(core.left - halo, 0),
                min(core.right + halo, width),
            )
            for core in cores
        ]
        borrowed = [
            (i, j, box)
            for i, outer in enumerate(tiles)
            for j, core in enumerate(cores)
            if i != j and (box := outer & core) is not None
        ]
        return cls(picture, cores, tiles, factor, borrowed)

    def take(self, index: int, images: Tensor) -> Tensor:
        """Return the tile's part of the picture."""
        return self.tiles[index].within(self.picture, images)

    def put(self, index: int, output: Tensor, result: Tensor) -> None:
        """Write the core of the tile's result to its place."""
        core, tile = self.cores[index], self.tiles[index]
        if result.shape[-2:] != (tile.bottom - tile.top, tile.right - tile.left):
            raise ValueError(f"the network changed the size of its input to {tuple(result.shape)}; it cannot be tiled")
        core.within(self.picture, output).copy_(core.within(tile, result))

    def stride(self, index: int, x: Tensor) -> int:
        """Return how many pixels of the picture one position of the map ``x`` of a tile stands for."""
        tile = self.tiles[index]
        return _stride((tile.bottom - tile.top, tile.right - tile.left), x, self.factor)


def _cuts(length: int, tile: int, factor: int) -> list[int]:
    """Return the borders of near-equal parts of at most ``tile`` pixels, all multiples of ``factor``."""
    units, largest = length // factor, max(tile // factor, 1)
    count = math.ceil(units / largest)
    return [units * i // count * factor for i in range(count + 1)]


def _stride(size: tuple[int, int], x: Tensor, factor: int) -> int:
    stride = max(size[0] // x.shape[-2], 1)
    if factor % stride or (x.shape[-2] * stride, x.shape[-1] * stride) != size:
        raise NotTileable(
            f"a normalisation layer sees a map of {x.shape[-1]}x{x.shape[-2]} for {size[1]}x{size[0]} pixels,"
            f" which is not the size divided by a divisor of {factor}"
        )
    return stride


# --- tiles that meet at the normalisation layers ------------------------------------------------------


class _Abandoned(Exception):
    """Ends the thread of a tile after another one failed."""


class _Meeting:
    """Where the tiles meet at each normalisation layer.

    ``turn`` is held by the one thread that computes; waiting gives it to the next.
    """

    def __init__(self, grid: _Grid) -> None:
        self.grid = grid
        self.turn = threading.Condition()
        self.failure: BaseException | None = None
        self.statistics: tuple[Tensor, Tensor] | None = None
        self._round = 0
        self._left = False
        self._arrived: dict[int, tuple[object, Tensor, int]] = {}
        self._moments: dict[int, tuple[int, Tensor, Tensor]] = {}

    def attend(self, index: int, module: object, x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the mean and variance over the whole picture; ``x`` is the map of tile ``index``.

        On return the halo of ``x`` holds what the neighbours computed there.
        """
        if not _over_the_picture(x, dims):
            return _local_statistics(x, dims)
        stride = self.grid.stride(index, x)
        core = self.grid.cores[index].within(self.grid.tiles[index], x, stride)
        self._moments[index] = _moments(core, dims)
        self._arrived[index] = (module, x, stride)
        if self._left:
            raise RuntimeError("the tiles took different ways through the network; run it with tile=0")
        if len(self._arrived) < len(self.grid.cores):
            self._wait()
        else:
            self._conclude()
        assert self.statistics is not None
        return self.statistics

    def leave(self) -> None:
        """Tell that a tile is through the network."""
        self._left = True
        if self._arrived:
            raise RuntimeError("the tiles took different ways through the network; run it with tile=0")

    def fail(self, error: BaseException) -> None:
        """End all tiles; the first failure is the one that counts."""
        with self.turn:
            self.failure = self.failure or error
            # Nobody will need the maps any more, and the error may be for want of memory.
            self._arrived.clear()
            self.turn.notify_all()

    def _wait(self) -> None:
        this_round = self._round
        while self._round == this_round:
            if self.failure is not None:
                raise _Abandoned
            self.turn.wait()

    def _conclude(self) -> None:
        modules = {id(module) for module, _, _ in self._arrived.values()}
        if len(modules) > 1:
            raise RuntimeError("the tiles took different ways through the network; run it with tile=0")
        self.statistics = _combined([self._moments[i] for i in range(len(self.grid.cores))])
        for i, j, box in self.grid.borrowed:
            (_, mine, stride), (_, theirs, _) = self._arrived[i], self._arrived[j]
            box.within(self.grid.tiles[i], mine, stride).copy_(box.within(self.grid.tiles[j], theirs, stride))
        self._arrived.clear()
        self._moments.clear()
        self._round += 1
        self.turn.notify_all()


def _run_together(network: Network, images: Tensor, output: Tensor, grid: _Grid, dtype: torch.dtype | None) -> None:
    meeting = _Meeting(grid)

    def run(index: int) -> None:
        try:
            with meeting.turn, _inference(images.device, dtype), shared_statistics(partial(meeting.attend, index)):
                if meeting.failure is None:
                    grid.put(index, output, network(grid.take(index, images)))
                    meeting.leave()
        except _Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            meeting.fail(error)

    threads = [threading.Thread(target=run, args=(i,), name=f"tile {i}", daemon=True) for i in range(len(grid.cores))]
    started: list[threading.Thread] = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        for thread in started:
            thread.join()
    except BaseException as error:  # Ctrl-C, or the system gives no more threads
        meeting.fail(error)
        for thread in started:
            thread.join()
        raise
    if meeting.failure is not None:
        raise meeting.failure


def _over_the_picture(x: Tensor, dims: Sequence[int]) -> bool:
    """Tell whether a normalisation over ``dims`` looks at all pixels, or at single ones."""
    axes = {dim % x.ndim for dim in dims}
    if x.ndim == 4 and {2, 3} <= axes and 0 not in axes:
        return True
    if x.ndim == 4 and not axes & {0, 2, 3}:
        return False
    raise NotTileable(f"a normalisation over the dimensions {tuple(dims)} of a {x.ndim}-dimensional map is not known")


def _local_statistics(x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(x.float(), tuple(dims), correction=0, keepdim=True)
    return mean, var


def _moments(x: Tensor, dims: Sequence[int]) -> tuple[int, Tensor, Tensor]:
    """Return the number of values, their mean, and the sum of their squared deviations from it.

    Two passes over the data; the sum of squares minus the squared sum would cancel.
    """
    x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    mean = x.mean(tuple(dims), keepdim=True)
    squares = (x - mean).square_().sum(tuple(dims), keepdim=True)
    return x.numel() // mean.numel(), mean, squares


def _combined(parts: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return mean and (biased) variance of the union of the parts, by the formula of Chan et al. (1979)."""
    # MPS has no float64; the numbers are few, so the CPU computes them there.
    device = parts[0][1].device
    home = torch.device("cpu") if device.type == "mps" else device
    total = sum(count for count, _, _ in parts)
    means = [mean.to(home).double() for _, mean, _ in parts]
    weights = [count / total for count, _, _ in parts]
    mean = torch.stack([w * m for w, m in zip(weights, means, strict=True)]).sum(0)
    inside = torch.stack([squares.to(home).double() for _, _, squares in parts]).sum(0) / total
    between = torch.stack([w * (m - mean).square() for w, m in zip(weights, means, strict=True)]).sum(0)
    dtype = parts[0][1].dtype
    return mean.to(dtype).to(device), (inside + between).to(dtype).to(device)


# --- how far a network looks --------------------------------------------------------------------------

_measured: weakref.WeakKeyDictionary[Network, dict[tuple, Reach | str]] = weakref.WeakKeyDictionary()


def measure_reach(
    network: Network,
    channels: int = 3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Reach:
    """Measure how far a network looks, by following not-a-numbers through it.

    A block of NaN in the middle of a narrow picture spreads to everything that depends on it,
    whatever the weights are. At each normalisation the spread is measured and set back to the
    block, as :func:`tiled` sets the halos right there. If a layer does not let that happen (it
    computes on a copy), the spread goes on, and the measured reach is larger but still true.

    The result is remembered for as long as the network object lives.

    Args:
        network: see :func:`tiled`.
        channels: number of channels of its input.
        device: where the network is.
        dtype: as for :func:`tiled`; layers may work differently under autocast.

    Raises:
        NotTileable: if the network says so, or if NaNs reach the ends of the longest strip, as
            they do in networks with global pooling or attention.
    """
    device = torch.device(device)
    known = _measured.setdefault(network, {})
    key = (channels, device.type, dtype)
    if key not in known:
        try:
            known[key] = _measure_reach(network, channels, device, dtype)
        except NotTileable as reason:
            known[key] = str(reason)
    found = known[key]
    if isinstance(found, str):
        raise NotTileable(found)
    return found


def _measure_reach(network: Network, channels: int, device: torch.device, dtype: torch.dtype | None) -> Reach:
    name = type(network).__name__
    if not getattr(network, "tileable", True):
        raise NotTileable(f"{name} looks at the whole picture at once")
    factor = getattr(network, "factor", 1)
    # Wide enough for the padding of layers at 1/factor of the resolution.
    thickness = max(8 * factor, 64)
    for length in (256, 1024, 4096):
        length = max(length // (2 * factor), 4) * 2 * factor
        if length > 256 and length * thickness > 2**19:
            break
        probes = [_Probe(factor, length, axis) for axis in (2, 3)]
        for probe in probes:
            size = [1, channels, thickness, thickness]
            size[probe.axis] = length
            _follow(network, probe, torch.zeros(size, device=device), dtype)
        if all(probe.inside for probe in probes):
            return Reach(max(probe.radius for probe in probes), probes[0].normalisations)
    raise NotTileable(f"{name} looks further than {length // 2} pixels, perhaps at the whole picture")


def _follow(network: Network, probe: _Probe, images: Tensor, dtype: torch.dtype | None) -> None:
    probe.reset(images)
    # Plain convolutions: the fast ones (Winograd, FFT) compute in blocks, and NaN fills the block.
    with (
        torch.backends.mkldnn.flags(enabled=False),
        torch.backends.cudnn.flags(enabled=False),
        _inference(images.device, dtype),
        shared_statistics(probe.attend),
    ):
        output = network(images)
    if output.shape[-2:] != images.shape[-2:]:
        raise NotTileable(f"{type(network).__name__} changes the size of its input")
    if not output.isnan().any():
        raise NotTileable(f"how far {type(network).__name__} looks cannot be measured")
    probe.measure(output)


class _Probe:
    """Measures the spread of NaN along one axis of a strip, from a block of ``factor`` pixels."""

    def __init__(self, factor: int, length: int, axis: int) -> None:
        self.factor, self.length, self.axis = factor, length, axis
        self.start = length // 2 // factor * factor
        self.radius = 0
        self.normalisations = 0
        self.inside = True

    def attend(self, module: object, x: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Stand in for the statistics of a normalisation layer."""
        if not _over_the_picture(x, dims):
            return _local_statistics(x, dims)
        self.normalisations += 1
        self.measure(x)
        # Any statistics will do, as long as deep networks do not overflow, which would be NaN, too.
        finite = x.float().nan_to_num(0.0, 0.0, 0.0)
        variance = finite.square().mean(tuple(dims), keepdim=True)
        self.reset(x)
        return torch.zeros_like(variance), variance

    def measure(self, x: Tensor) -> None:
        """Take note of how far NaN has come in the map ``x``."""
        stride = self._stride(x)
        others = [dim for dim in range(x.ndim) if dim != self.axis]
        where = x.isnan().sum(others).nonzero().flatten()
        if not len(where):
            return
        first, last = int(where[0]), int(where[-1])
        if first == 0 or last == x.shape[self.axis] - 1:
            self.inside = False
        before = self.start - first * stride
        after = (last + 1) * stride - (self.start + self.factor)
        self.radius = max(self.radius, before, after)

    def reset(self, x: Tensor) -> None:
        """Set the map to zero, except for the block of NaN in the middle."""
        stride = self._stride(x)
        x.zero_()
        x.narrow(self.axis, self.start // stride, self.factor // stride).fill_(math.nan)

    def _stride(self, x: Tensor) -> int:
        length = x.shape[self.axis]
        stride = max(self.length // length, 1)
        if self.factor % stride or length * stride != self.length:
            raise NotTileable(
                f"a normalisation layer sees a map of length {length} for {self.length} pixels,"
                f" which is not the size divided by a divisor of {self.factor}"
            )
        return stride
