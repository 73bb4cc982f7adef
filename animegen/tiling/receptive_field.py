"""Measure how far the layers of a network look."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from animegen.tiling.recorder import Tape, TilingError, record


@dataclass(frozen=True)
class Reach:
    """How far a network looks, and what it does.

    Attributes:
        radius: largest distance in pixels of the input between a value and what it depends on,
            counted from the last normalisation over the whole picture, or from the input.
        tape: the network's steps, if they are the same for all picture sizes, else ``None``.
        normalisations: number of normalisations over the whole picture in one forward pass.
    """

    radius: int
    tape: Tape | None
    normalisations: int


def measure_reach(
    network: Callable[[Tensor], Tensor],
    channels: int = 3,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Reach:
    """Measure how far a network looks, by following not-a-numbers through it.

    A block of NaN in the middle of a narrow strip spreads to everything that depends on it,
    whatever the weights are. At each normalisation over the whole picture the spread is measured
    and set back to the block, as tiled inference sets the halos right there. If a network does
    not let that happen (it normalises a copy), the spread goes on and the result is larger.

    Args:
        network: maps ``(B,C,H,W)`` to the same H and W. Attribute ``size_divisor`` (default 1): H and W
            must be multiples of it. Attribute ``tileable = False``: it looks at the whole picture.
        channels: number of channels of its input.
        device: where the network is.
        dtype: autocast type; the network may take other steps under autocast.

    Raises:
        TilingError: if the network looks at the whole picture, changes the size, or computes
            with something that cannot be followed.
    """
    if not getattr(network, "tileable", True):
        raise TilingError("the network looks at the whole picture at once")
    factor = getattr(network, "size_divisor", 1)
    # Wide enough for the padding of layers at 1/factor of the resolution.
    thickness = max(8 * factor, 32)
    for length in (128, 512, 1024):
        # Of different sizes, so that steps that depend on the size show.
        strips = [
            _Strip(factor, max(length // factor, 16) * factor, thickness, axis=2, batch=1),
            _Strip(factor, (max(length // factor, 16) + 2) * factor, thickness + factor, axis=3, batch=2),
        ]
        tapes = [strip.follow(network, channels, torch.device(device), dtype) for strip in strips]
        if all(strip.inside for strip in strips):
            tape = tapes[0] if tapes[0] == tapes[1] else None
            return Reach(max(strip.radius for strip in strips), tape, tapes[0].normalisations)
    raise TilingError(f"the network looks further than {strips[0].length // 2} pixels, perhaps at the whole picture")


class _Strip:
    """Measures the spread of NaN along one axis of a strip, from a block of ``factor`` pixels."""

    def __init__(self, factor: int, length: int, thickness: int, axis: int, batch: int) -> None:
        self.factor, self.length, self.thickness, self.axis, self.batch = factor, length, thickness, axis, batch
        self.start = length // 2 // factor * factor
        self.radius = 0
        #: Whether the spread ended before the ends of the strip.
        self.inside = True

    def follow(
        self,
        network: Callable[[Tensor], Tensor],
        channels: int,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> Tape:
        """Run the network on the strip."""
        size = [self.batch, channels, self.thickness, self.thickness]
        size[self.axis] = self.length
        images = torch.zeros(size, device=device)
        self.reset(images)
        with inference(device, dtype), plain_convolutions():
            tape, output = record(network, images, self.statistics)
        if output.shape[-2:] != images.shape[-2:]:
            raise TilingError(f"the network makes {tuple(output.shape)} of {tuple(images.shape)}")
        if not output.isnan().any():
            raise TilingError("how far the network looks cannot be measured")
        self.measure(output)
        return tape

    def statistics(self, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Stand in for the statistics of a normalisation layer."""
        self.measure(x)
        # Any statistics do that one can divide by and that keep deep networks from overflowing: both make NaN, too.
        variance = x.float().nan_to_num(0.0, 0.0, 0.0).square().mean(dims, keepdim=True).clamp_min(1.0)
        self.reset(x)
        return torch.ones_like(variance), variance

    def measure(self, x: Tensor) -> None:
        """Take note of how far NaN has come in the map ``x``."""
        stride = map_stride(self.length, x.shape[self.axis], self.factor)
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
        stride = map_stride(self.length, x.shape[self.axis], self.factor)
        x.zero_()
        x.narrow(self.axis, self.start // stride, self.factor // stride).fill_(math.nan)


def map_stride(pixels: int, length: int, factor: int) -> int:
    """Return how many pixels one position of a map stands for, given its length for a side of so many pixels.

    Raises:
        TilingError: if tiles would not fit together in the map.
    """
    stride = max(pixels // length, 1)
    if factor % stride or length * stride != pixels:
        raise TilingError(
            f"the network normalises a map of {length} positions for {pixels} pixels, which is not that size divided by"
            f" a divisor of its factor {factor}"
        )
    return stride


@contextmanager
def inference(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Compute without gradients, and under autocast to ``dtype`` unless that is ``None``."""
    with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        yield


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Switch off libraries whose convolutions compute in blocks (Winograd, FFT): NaN would fill the blocks."""
    # Any: to type checkers they are modules, whose switches they do not see.
    libraries: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn]
    before = [library.enabled for library in libraries]
    for library in libraries:
        library.enabled = False
    try:
        yield
    finally:
        for library, enabled in zip(libraries, before, strict=True):
            library.enabled = enabled
