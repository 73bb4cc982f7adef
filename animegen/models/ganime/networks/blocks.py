"""Building blocks of the tokenizer: residual block, attention, and changes of resolution."""

from __future__ import annotations

from math import gcd

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.ganime.networks.cpu_kernels import GroupNorm

RESAMPLE = ("conv", "bilinear", "nearest")


def norm(channels: int, groups: int = 32, eps: float = 1e-6) -> nn.GroupNorm:
    """Return group norm with the greatest number of groups that divides both ``groups`` and ``channels``."""
    return GroupNorm(gcd(groups, channels), channels, eps)


class ResBlock(nn.Module):
    """Residual block: norm, SiLU and 3x3 convolution, twice; a 1x1 shortcut where the number of channels changes.

    Args:
        inputs: input channels.
        outputs: output channels.
        groups: groups of the norms.
        eps: epsilon of the norms.
        dropout: dropout probability before the second convolution.
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


class SpatialAttention(nn.Module):
    """Single-head self-attention over all positions of a map, with a residual connection.

    Args:
        channels: channels of the map.
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
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(2, x.shape[-2:])
        return x + self.project(attended)


class Downsample(nn.Module):
    """Halve the resolution of a map.

    Args:
        channels: channels of the map.
        resample: see :func:`check_resample`.
    """

    def __init__(self, channels: int, resample: str) -> None:
        super().__init__()
        self.stride = resample == "conv"
        self.conv = (
            nn.Conv2d(channels, channels, 3, stride=2) if self.stride else nn.Conv2d(channels, channels, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w), h and w even, to (B,C,h/2,w/2)."""
        # Asymmetric padding, as in taming-transformers.
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.stride else F.avg_pool2d(x, 2))


class Upsample(nn.Module):
    """Double the resolution of a map, followed by a 3x3 convolution.

    Args:
        channels: channels of the map.
        resample: see :func:`check_resample`.
    """

    def __init__(self, channels: int, resample: str) -> None:
        super().__init__()
        self.mode = "bilinear" if resample == "bilinear" else "nearest"
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,h,w) to (B,C,2h,2w)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode=self.mode))


def check_resample(resample: str) -> None:
    """Check the name of a resampling method.

    ============  ==============================  ======================  ====================================
    ``resample``  downsampling                    upsampling              used by
    ============  ==============================  ======================  ====================================
    ``conv``      3x3 convolution of stride 2     nearest, convolution    taming-transformers, TorchGANime
    ``bilinear``  2x2 average, 3x3 convolution    bilinear, convolution   GANime; avoids checkerboard artefacts
    ``nearest``   2x2 average, 3x3 convolution    nearest, convolution
    ============  ==============================  ======================  ====================================

    Raises:
        AnimegenError: if there is no such method.
    """
    if resample not in RESAMPLE:
        raise AnimegenError(
            f"The tokenizer has no resample={resample}: use {', '.join(RESAMPLE)}.{did_you_mean(resample, RESAMPLE)}"
        )
