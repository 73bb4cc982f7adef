"""Run a convolutional network tile by tile with the result of the whole image.

Tiles save memory, but normalisation layers with statistics of the whole image (instance norm, layer norm) would see
other statistics in every tile, and the tiles would differ in tone. Here the network is traced once and cut into
segments at its means and variances over the whole image. Each segment is computed for all tiles before the next:

1. Each tile reads its windows of the feature maps, the core and a halo around it, and computes the segment.
2. It stores the cores of the values that later segments read, and the moments of the next reduction.
3. The moments of all tiles give the statistics of the whole image.

So the halo covers the receptive field of one segment, some pixels, not that of the network. Between segments only the
feature maps that later segments read exist, in memory up to a limit and in a temporary file beyond it: the memory of
a network does not grow with the image.

Windows end at the borders of the image, where the network pads as it does without tiles. At other borders of a window
padding is wrong, and stays within the halo.
"""

from __future__ import annotations

import math
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from animegen.errors import AnimegenError
from animegen.nn.precision import inference
from animegen.tiling.graph import Segment, TilingError, trace
from animegen.tiling.grid import Box, Grid
from animegen.tiling.receptive_field import map_stride, receptive_field
from animegen.tiling.storage import Budget, FeatureMap, explained, temporary_folder

Network = Callable[[Tensor], Tensor]

#: Bytes of feature maps kept in memory.
MEMORY = 2**29
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
        network: maps ``(B,C,H,W)`` to the same shape, in eval mode. Its attribute ``size_divisor`` (default 1) divides
            H and W. With ``tileable = False`` it always runs on whole images.
        images: ``(B,C,H,W)``, on the network's device.
        tile: largest side of a tile's core in pixels; 0, or at least the image's size: no tiles.
        halo: margin around each core in pixels; ``None``: the receptive field of the network.
        dtype: run under autocast to this type, e.g. ``torch.bfloat16``; ``None``: no autocast.

    Returns:
        ``(B,C,H,W)`` of the type of ``images``, without gradient.

    Raises:
        ValueError: if H or W is not a multiple of ``size_divisor``, or the network is in training mode.

    Warns:
        UserWarning: if the network cannot be tiled; then it ran on the whole image.
    """
    divisor = getattr(network, "size_divisor", 1)
    height, width = images.shape[-2:]
    if height % divisor or width % divisor:
        raise ValueError(f"the image is {width}x{height} pixels, but the network needs multiples of {divisor}")
    if getattr(network, "training", False):
        raise ValueError("the network is in training mode; call eval() before running it in tiles")
    if tile > 0 and max(height, width) > tile:
        try:
            radius = halo_of(network, images.shape[1], images.device, dtype)
        except TilingError as reason:
            warnings.warn(f"The image is not split into tiles: {reason}.", stacklevel=2)
        else:
            output = torch.empty_like(images)
            grid = Grid(height, width, tile, radius if halo is None else halo, divisor)
            run_tiles(network, grid, *_views(images, output, grid), images.device, dtype)
            return output
    with inference(images.device, dtype):
        return network(images).to(images.dtype)


def _views(images: Tensor, output: Tensor, grid: Grid) -> tuple[Callable[[Box], Tensor], Callable[[Box, Tensor], None]]:
    """Return functions that read windows of ``images`` and write cores to ``output``."""

    def read(box: Box) -> Tensor:
        return box.of(images, grid.image).clone()

    def write(box: Box, x: Tensor) -> None:
        box.of(output, grid.image).copy_(x)

    return read, write


def halo_of(
    network: Network,
    channels: int = 3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> int:
    """Return the halo that a network needs in pixels, after a test on a small image that tiles give the same result.

    The answer is cached for the lifetime of the network object; its weights may change in place, but not be replaced.
    Arguments as for :func:`~animegen.tiling.receptive_field.receptive_field`.

    Raises:
        TilingError: if it cannot run in tiles.
    """
    device = torch.device(device)
    known = _halos.setdefault(network, {})
    key = (channels, device.type, dtype)
    if key not in known:
        try:
            radius = receptive_field(network, channels, device, dtype)
            if dtype is None:
                _verify(network, radius, channels, device)
            else:  # in full precision, where differences are not those of rounding
                halo_of(network, channels, device)
            known[key] = radius
        except TilingError as reason:
            known[key] = str(reason)
        except RuntimeError as error:
            known[key] = f"it fails on small images ({' '.join(str(error).split())[:120]})"
    found = known[key]
    if isinstance(found, str):
        raise TilingError(found)
    return found


_halos: weakref.WeakKeyDictionary[Network, dict[tuple, int | str]] = weakref.WeakKeyDictionary()


def _verify(network: Network, radius: int, channels: int, device: torch.device) -> None:
    """Compare tiled and untiled output on noise; they differ if an output depends on its position in the image.

    Chaotic networks amplify the smallest difference; the tolerance is relative to a small change of the input.
    """
    divisor = getattr(network, "size_divisor", 1)
    halo = math.ceil(radius / divisor) * divisor
    tile = math.ceil(max(16 * divisor, 2 * halo, 64) / divisor) * divisor
    generator = torch.Generator().manual_seed(0)
    size = (1, channels, max(math.ceil(64 / divisor), 8) * divisor, 2 * tile)
    images = torch.rand(size, generator=generator) * 2 - 1
    changed = (images + 1e-5 * torch.randn(size, generator=generator)).to(device)
    images = images.to(device)
    with inference(device, None):
        whole = network(images)
        sensitivity = float((network(changed) - whole).abs().max())
    grid, output = Grid(size[2], size[3], tile, halo, divisor), torch.empty_like(whole)
    run_tiles(network, grid, *_views(images, output, grid), device)
    difference = float((output - whole).abs().max())
    if not difference <= max(TOLERANCE, 10 * sensitivity):
        raise TilingError(
            f"an output pixel depends on its position or on the image's size (tiles differ by {difference:.2g})"
        )


def run_tiles(
    network: Network,
    grid: Grid,
    read: Callable[[Box], Tensor],
    write: Callable[[Box, Tensor], None],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> None:
    """Run a network in the tiles of a grid.

    Args:
        network: see :func:`tiled`; its halo (:func:`halo_of`) fits into that of the grid.
        grid: the tiles.
        read: returns a window of the image ``(B,C,h,w)`` that the caller does not use; called from several threads.
        write: receives the network's output for a core ``(B,C,h,w)``; called from several threads.
        device: device of the computation.
        dtype: autocast type, ``None`` for full precision.

    Raises:
        AnimegenError: if the feature maps need more space for temporary files than there is.
    """
    segments = _segments(network, read(grid.windows[0]), device, dtype)
    limit = _memory(device)
    _require_space(segments, grid, limit)
    budget = Budget(limit)
    values: dict[fx.Node, Any] = {segments[0].reads[0]: _Image(grid, read)}
    with _workers(device, len(grid.windows)) as for_all:
        for number, segment in enumerate(segments):
            segment.prepare(values)
            values.update({node: FeatureMap(grid, *_layout(node, grid), budget) for node in segment.writes})
            job = partial(_run_tile, segment, values, grid, write)
            total = None if segment.reduction is None else segment.reduction.total()
            for moments in for_all(job):
                if total is not None:
                    total.add(moments)
            if total is not None and segment.reduced is not None:
                values[segment.reduced] = total.result(segment.result.meta["val"].dtype)
            for node in segment.reads:
                if not _read_later(node, segments[number + 1 :]):
                    values.pop(node).close()


def _run_tile(
    segment: Segment, values: dict[fx.Node, Any], grid: Grid, write: Callable[[Box, Tensor], None], tile: int
) -> Any:
    """Compute a segment for one tile; return the moments of the next reduction."""
    written, result = segment.run((values[node].window(tile) for node in segment.reads), values)
    for node, x in zip(segment.writes, written, strict=True):
        values[node].write(tile, x)
    core, window = grid.cores[tile], grid.windows[tile]
    if segment.reduction is None:
        return write(core, core.of(result, window))
    return segment.reduction.moments(core.of(result, window, _layout(segment.result, grid)[1]))


class _Image:
    """The network's input in place of a feature map: its windows are read from the caller again."""

    def __init__(self, grid: Grid, read: Callable[[Box], Tensor]) -> None:
        self.grid, self.read = grid, read

    def window(self, tile: int) -> Tensor:
        return self.read(self.grid.windows[tile])

    def close(self) -> None:
        """Do nothing; the caller owns the image."""


def _segments(network: Network, images: Tensor, device: torch.device, dtype: torch.dtype | None) -> list[Segment]:
    """Trace a network, or return the cached trace for images of this size."""
    known = _traces.setdefault(network, {})
    key = (images.shape, images.stride(), images.dtype, device, dtype)
    if key not in known:
        if len(known) == _TRACES:
            known.clear()
        with inference(device, dtype):
            known[key] = trace(network, images)
    return known[key]


_traces: weakref.WeakKeyDictionary[Network, dict[tuple, list[Segment]]] = weakref.WeakKeyDictionary()
#: Sizes of windows whose traces are kept; photos of a folder may differ in size, frames of a video do not.
_TRACES = 8


def _layout(node: fx.Node, grid: Grid) -> tuple[Tensor, int]:
    """Return a window of a feature map without data, and the stride of the map in pixels."""
    like, window = node.meta["val"], grid.windows[0]
    stride = map_stride(window.bottom - window.top, like.shape[-2], grid.divisor)
    if stride != map_stride(window.right - window.left, like.shape[-1], grid.divisor):
        raise TilingError("it scales height and width differently")
    return like, stride


def _read_later(node: fx.Node, segments: list[Segment]) -> bool:
    return any(node in segment.reads for segment in segments)


@contextmanager
def _workers(device: torch.device, count: int) -> Iterator[Callable[[Callable[[int], Any]], Iterator[Any]]]:
    """Yield a function that calls ``job(i)`` for all ``count`` tiles and yields the results in order.

    On a CPU every core takes one tile at a time. Sharing the single operations of a tile among the cores, as torch
    does, would synchronise them after each of the many small operations. Meanwhile torch's number of threads is 1.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or count == 1:
        with torch.no_grad():
            yield lambda job: map(job, range(count))
        return

    def alone(job: Callable[[int], Any], tile: int) -> Any:
        with torch.no_grad():  # holds for the thread that enters it
            return job(tile)

    try:
        with ThreadPoolExecutor(min(threads, count), "tile", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield lambda job: pool.map(partial(alone, job), range(count))
    finally:
        torch.set_num_threads(threads)


def _memory(device: torch.device) -> int:
    """Return the limit on feature maps in memory in bytes: :data:`MEMORY`, or half of the free memory."""
    return torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else MEMORY


def _require_space(segments: list[Segment], grid: Grid, limit: int) -> None:
    """Check that the feature maps beyond the limit fit into the folder for temporary files.

    Raises:
        AnimegenError: if they do not.
    """
    window = grid.windows[0]
    windows = (grid.image.bottom * grid.image.right) / ((window.bottom - window.top) * (window.right - window.left))
    live: set[fx.Node] = set()
    largest = 0.0
    for number, segment in enumerate(segments):
        live.update(segment.writes)
        largest = max(largest, windows * sum(node.meta["val"].nbytes for node in live))
        live = {node for node in live if _read_later(node, segments[number + 1 :])}
    folder = temporary_folder()
    with explained():
        free = shutil.disk_usage(folder).free
    if largest - limit > free:
        raise AnimegenError(
            f"{grid.image.right}x{grid.image.bottom} pixels need {(largest - limit) / 1e9:.1f} GB of temporary files,"
            f" and '{folder}' has {free / 1e9:.1f} GB left: set max_side= to scale the image down, or the environment"
            " variable TMPDIR to a folder with more space"
        )
