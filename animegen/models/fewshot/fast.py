"""Faster inference on whole frames in less memory: folded batch norms, and processing in strips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

#: Approximate number of pixels of a strip: a frame of 512 x 512 is one strip, a frame of 1920 x 1080 has six.
STRIP_PIXELS = 3 * 2**17


class FoldingSequential(nn.Sequential):
    """``nn.Sequential`` that in eval mode folds batch norms into the convolutions before them.

    This saves one read and one write of large maps per norm. State dicts are those of ``nn.Sequential``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Apply all layers."""
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
    """Return whether a layer is a batch norm in eval mode."""
    return isinstance(norm, nn.BatchNorm2d) and not norm.training


def folded(convolution: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution that equals ``convolution`` followed by ``norm`` in eval mode."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    mean = norm.running_mean if convolution.bias is None else norm.running_mean - convolution.bias
    return convolution.weight * scale[:, None, None, None], norm.bias - mean * scale


def strips(height: int, width: int, multiple: int) -> Iterator[tuple[int, int]]:
    """Yield the row ranges (first, end) of near-equal strips of about :data:`STRIP_PIXELS` pixels or less.

    The bounds are multiples of ``multiple``, which must divide ``height``.
    """
    count = math.ceil(height * width / STRIP_PIXELS)
    units = height // multiple
    bounds = [round(units * number / count) * multiple for number in range(count + 1)]
    yield from pairwise(bounds)


def in_strips(network: Callable[..., Tensor], maps: list[tuple[Tensor, int]], margin: int, multiple: int = 1) -> Tensor:
    """Return ``network(*maps)``, computed in horizontal strips for large frames, which takes less memory.

    Args:
        network: maps the inputs of a strip to (B,C,rows,W). Each row may depend only on rows up to ``margin`` away.
            Each strip is computed with a margin, in which the border padding of the network has its effect, and which
            is then dropped.
        maps: ``(map, scale)``: an input with ``scale`` times fewer rows and columns than the output.
        margin: margin of the strips in rows of the output, a multiple of every scale and of ``multiple``.
        multiple: divisor of the first rows of the strips, for networks with strides.
    """
    first, scale = maps[0]
    height, width = first.shape[-2] * scale, first.shape[-1] * scale
    if height * width <= STRIP_PIXELS:
        return network(*(values for values, _ in maps))
    pieces = []
    for top, bottom in strips(height, width, max(multiple, *(scale for _, scale in maps))):
        begin, end = max(top - margin, 0), min(bottom + margin, height)
        piece = network(*(values[..., begin // scale : end // scale, :] for values, scale in maps))
        pieces.append(piece[..., top - begin : bottom - begin, :])
    return torch.cat(pieces, -2)
