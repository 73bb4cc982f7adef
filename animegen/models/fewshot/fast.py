"""Two ways to draw whole frames faster and in less memory, with the numbers of the plain way up to rounding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

STRIP_PIXELS = 3 * 2**17
"""A strip of a frame has about so many pixels. A frame of 512 x 512 is one strip, one of 1920 x 1080 has six."""


class FoldingSequential(nn.Sequential):
    """Layers one after the other; in eval mode batch norms become part of the convolutions right before them.

    That spares two passes over large maps: reading and writing them once more to scale and shift each channel.
    Keys of the state dict are those of ``nn.Sequential``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Map what the first layer takes to what the last one gives."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if layers and isinstance(layer, nn.Conv2d) and _fixed(layers[0]):
                weight, bias = folded(layer, layers.pop(0))
                input = layer._conv_forward(input, weight, bias)
            else:
                input = layer(input)
        return input


def _fixed(norm: nn.Module) -> bool:
    """Tell whether a layer scales and shifts channels by fixed numbers."""
    return isinstance(norm, nn.BatchNorm2d) and not norm.training


def folded(convolution: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that does what ``convolution`` and then ``norm`` in eval mode do."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if convolution.bias is None else norm.running_mean - convolution.bias
    return convolution.weight * scale[:, None, None, None], norm.bias - mean * scale


def strips(height: int, width: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Yield (first row, one after the last) of near-equal strips of about :data:`STRIP_PIXELS` or less.

    The bounds are multiples of ``multiple``, which divides ``height``.
    """
    count = math.ceil(height * width / STRIP_PIXELS)
    units = height // multiple
    bounds = [round(units * number / count) * multiple for number in range(count + 1)]
    yield from pairwise(bounds)


def in_strips(network: Callable[..., Tensor], maps: list[tuple[Tensor, int]], reach: int) -> Tensor:
    """Return ``network(*maps)``, computed strip by strip where the frame is large: the same, in less memory.

    Args:
        network: gets the maps of a strip and returns (B,C,rows,W), each row of which depends on rows up to ``reach``
            away and on no other. What it does at the border of a frame, it does at the border of a strip, too; these
            rows are computed too much, and dropped.
        maps: ``(map, scale)``: a map of ``scale`` times fewer rows and columns than the result. ``reach`` is a
            multiple of every scale.
        reach: see above.
    """
    first, scale = maps[0]
    height, width = first.shape[-2] * scale, first.shape[-1] * scale
    if height * width <= STRIP_PIXELS:
        return network(*(values for values, _ in maps))
    done = []
    for top, bottom in strips(height, width, max(scale for _, scale in maps)):
        begin, end = max(top - reach, 0), min(bottom + reach, height)
        piece = network(*(values[..., begin // scale : end // scale, :] for values, scale in maps))
        done.append(piece[..., top - begin : bottom - begin, :])
    return torch.cat(done, -2)
