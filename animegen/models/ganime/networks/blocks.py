"""The blocks of the tokenizer: residual block, attention, and changing the size of a map."""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean

RESAMPLE = ("conv", "bilinear", "nearest")


class GroupNorm(nn.GroupNorm):
    """Group norm that goes backward over channels-last maps in bfloat16 on a CPU nearly as fast as over others.

    For those torch has a slow way: with a batch of 8 and 64 channels of 64x128 it took 51 ms, in the other order of
    memory 1.6.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w) to the same shape."""
        slow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
        slow = slow and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        if slow and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return _Turned.apply(x, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(x)


class _Turned(torch.autograd.Function):
    """Group norm whose backward pass runs in the other order of memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        size, channels, places = x.shape[0], x.shape[1], x.shape[2:].numel()
        ctx.sizes = (size, channels, places, groups)
        y, mean, rstd = torch.native_group_norm(x, weight, bias, size, channels, places, groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        found = torch.ops.aten.native_group_norm_backward(
            gradient.contiguous(), x.contiguous(), mean, rstd, weight, *ctx.sizes, list(ctx.needs_input_grad[:3])
        )
        to_x, to_weight, to_bias = (part if part is None or part.numel() else None for part in found)
        return None if to_x is None else _channels_last(to_x), to_weight, to_bias, None, None


def _channels_last(maps: Tensor) -> Tensor:
    """Return contiguous maps (B,C,h,w) in the order channels-last; faster, picture by picture, than torch does it."""
    result = torch.empty_like(maps, memory_format=torch.channels_last)
    for target, source in zip(result, maps, strict=True):
        target.permute(1, 2, 0).flatten(0, 1).copy_(source.flatten(1).t())
    return result


def norm(channels: int, groups: int = 32, eps: float = 1e-6) -> nn.GroupNorm:
    """Return group norm with ``groups`` groups, or as many as divide ``channels`` evenly."""
    return GroupNorm(gcd(groups, channels), channels, eps)


class ResBlock(nn.Module):
    """Norm, swish, 3x3 convolution, twice, plus a shortcut (1x1 where the number of channels changes).

    Args:
        inputs: input channels.
        outputs: output channels.
        groups: groups of the norms.
        eps: epsilon of the norms.
        dropout: before the second convolution.
    """

    def __init__(self, inputs: int, outputs: int, groups: int = 32, eps: float = 1e-6, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(inputs, groups, eps), norm(outputs, groups, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,h,w) to (B,outputs,h,w)."""
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(self.dropout(F.silu(self.norm2(y))))
        return self.shortcut(x) + y


class Attention(nn.Module):
    """Self-attention with one head over all places of a map, scaled by the root of its width, added to the map.

    Args:
        channels: of the map.
        groups: groups of the norm.
        eps: epsilon of the norm.
    """

    def __init__(self, channels: int, groups: int = 32, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = norm(channels, groups, eps)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w) to the same shape."""
        q, k, v = (part.flatten(2).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, 1))
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.project(read)


class Down(nn.Module):
    """Halve a map: ``conv`` by a 3x3 convolution of stride 2 (taming), else by averaging before one of stride 1.

    Args:
        channels: of the map.
        resample: see `check_resample`.
    """

    def __init__(self, channels: int, resample: str) -> None:
        super().__init__()
        self.stride = resample == "conv"
        self.conv = (
            nn.Conv2d(channels, channels, 3, stride=2) if self.stride else nn.Conv2d(channels, channels, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w), h and w even, to (B,C,h/2,w/2)."""
        # One more row below and column to the right, as taming has it.
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.stride else F.avg_pool2d(x, 2))


class Up(nn.Module):
    """Double a map, then a 3x3 convolution.

    Args:
        channels: of the map.
        resample: ``bilinear`` interpolates, the others repeat values.
    """

    def __init__(self, channels: int, resample: str) -> None:
        super().__init__()
        self.mode = "bilinear" if resample == "bilinear" else "nearest"
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w) to (B,C,2h,2w)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode=self.mode))


def check_resample(resample: str) -> None:
    """Check the way in which maps change their size.

    ============  ==================================  =====================================================
    resample      down                                up
    ============  ==================================  =====================================================
    ``conv``      convolution of stride 2             nearest, convolution: taming-transformers, TorchGANime
    ``bilinear``  2x2 average, convolution            bilinear, convolution: GANime, against checkerboards
    ``nearest``   2x2 average, convolution            nearest, convolution
    ============  ==================================  =====================================================

    Raises:
        AnimegenError: if there is no such way.
    """
    if resample not in RESAMPLE:
        raise AnimegenError(
            f"The tokenizer has no resample={resample}: use {', '.join(RESAMPLE)}.{did_you_mean(resample, RESAMPLE)}"
        )
