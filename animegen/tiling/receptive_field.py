"""Measure the receptive field of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from animegen.nn.precision import inference
from animegen.tiling.graph import Segment, TilingError, trace


def receptive_field(
    network: Callable[[Tensor], Tensor],
    channels: int = 3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> int:
    """Return the largest distance in pixels between a value and its inputs within one segment.

    A block of NaN in the middle of an image spreads to everything that depends on it, whatever the weights are.
    Where a segment ends (:func:`~animegen.tiling.graph.trace`) the spread is measured and the feature maps are reset to
    the block, as tiled inference replaces the halos there.

    Args:
        network: maps ``(B,C,H,W)`` to the same H and W, which are multiples of its attribute ``size_divisor`` (default
            1). Its attribute ``tileable`` is ``False`` if an output pixel depends on the whole image.
        channels: number of channels of its input.
        device: device of the network.
        dtype: autocast type; the graph may differ under autocast.

    Raises:
        TilingError: if the network depends on the whole image otherwise than by means and variances, changes the size,
            or cannot be traced.
    """
    if not getattr(network, "tileable", True):
        raise TilingError("an output pixel depends on the whole image")
    divisor = getattr(network, "size_divisor", 1)
    device = torch.device(device)
    for length in (128, 384, 1024):
        probe = _Probe(divisor, max(length // divisor, 16) * divisor)
        probe.run(network, channels, device, dtype)
        if probe.contained:
            return probe.radius
    raise TilingError(f"its receptive field exceeds {probe.length // 2} pixels or is the whole image")


class _Probe:
    """Measures the spread of NaN in a square image, from a block of ``size_divisor`` pixels in its middle."""

    def __init__(self, divisor: int, length: int) -> None:
        self.divisor, self.length = divisor, length
        self.start = length // 2 // divisor * divisor
        self.radius = 0
        #: Whether the spread ended before the borders of the image.
        self.contained = True

    def run(
        self, network: Callable[[Tensor], Tensor], channels: int, device: torch.device, dtype: torch.dtype | None
    ) -> None:
        """Run the network on the image."""
        images = torch.zeros(1, channels, self.length, self.length, device=device)
        with inference(device, dtype):
            segments = trace(network, images)
        values: dict[Any, Any] = {segments[0].reads[0]: self.reset(images)}
        with torch.no_grad(), _direct_convolutions():
            for segment in segments:
                self.step(segment, values)
        result = values[segments[-1].result]
        if result.shape[-2:] != images.shape[-2:]:
            raise TilingError(f"it makes {tuple(result.shape)} of {tuple(images.shape)}")
        if not result.isnan().any():
            raise TilingError("its receptive field cannot be measured")

    def step(self, segment: Segment, values: dict[Any, Any]) -> None:
        """Run a segment; measure its values, and reset those that later segments read."""
        segment.prepare(values)
        written, result = segment.run([values[node].clone() for node in segment.reads], values)
        for x in (*written, result):
            self.measure(x)
        values.update(zip(segment.writes, map(self.reset, written), strict=True))
        if segment.reduction is None:
            values[segment.result] = result
        else:
            # Statistics of an image that keeps all values outside the spread finite; its own would be NaN.
            clean = torch.ones_like(result)
            if segment.reduction.groups is not None:
                clean[..., ::2] = -1
            total = segment.reduction.total()
            total.add(segment.reduction.moments(clean))
            values[segment.reduced] = total.result(result.dtype)

    def measure(self, x: Tensor) -> None:
        """Update the radius by the extent of NaN in the map ``x``."""
        for axis in (-2, -1):
            stride = map_stride(self.length, x.shape[axis], self.divisor)
            where = x.isnan().movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
            if not len(where):
                return
            first, last = int(where[0]), int(where[-1])
            if first == 0 or last == x.shape[axis] - 1:
                self.contained = False
            before = self.start - first * stride
            after = (last + 1) * stride - (self.start + self.divisor)
            self.radius = max(self.radius, before, after)

    def reset(self, x: Tensor) -> Tensor:
        """Return a map of zeros with the block of NaN in the middle."""
        x = torch.zeros_like(x)
        block = x
        for axis in (-2, -1):
            stride = map_stride(self.length, x.shape[axis], self.divisor)
            block = block.narrow(axis, self.start // stride, self.divisor // stride)
        block.fill_(math.nan)
        return x


def map_stride(pixels: int, length: int, divisor: int) -> int:
    """Return the stride of a feature map: the pixels per position, given its length for a side of ``pixels``.

    Raises:
        TilingError: if the stride does not divide ``size_divisor``, so that tiles would not fit together in the map.
    """
    stride = max(pixels // length, 1)
    if divisor % stride or length * stride != pixels:
        raise TilingError(
            f"it has a map of {length} positions for {pixels} pixels, which is not that size divided by a divisor of"
            f" its size_divisor {divisor}"
        )
    return stride


@contextmanager
def _direct_convolutions() -> Iterator[None]:
    """Disable cuDNN, whose convolutions may compute in blocks (Winograd, FFT): NaN would fill the blocks."""
    with torch.backends.cudnn.flags(enabled=False):
        yield
