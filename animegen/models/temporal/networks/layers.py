"""Content encoder and decoder of the generator, which process each frame independently."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.temporal.networks.style import AdaNorm
from animegen.nn.conv import SLOPE, ReflectConv, Upsample
from animegen.nn.norm import make_norm
from animegen.nn.precision import reflect_pad

#: Channels at full resolution, independent of the width.
DETAIL = 16


class BlurDownsample(nn.Module):
    """Halve the resolution by a 2x2 convolution of stride 2, optionally after a [1,2,1] blur (Zhang 2019).

    Without the blur, a shift by one pixel changes the features at half resolution, and moving objects flicker.
    """

    def __init__(self, inputs: int, outputs: int, blur: bool) -> None:
        super().__init__()
        self.blur = blur
        self.conv = ReflectConv(inputs, outputs, 2, stride=2, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,inputs,H,W) to (N,outputs,H/2,W/2)."""
        if self.blur:  # [1,2,1] is [1,1] applied twice
            x = F.avg_pool2d(reflect_pad(x, (1, 1, 1, 1)), 2, stride=1)
            x = F.avg_pool2d(x, 2, stride=1)
        return self.conv(x)


class AdaptiveResBlock(nn.Module):
    """``x + conv(SiLU(conv(norm(x))))`` with 3x3 convolutions, initially the identity; with a code an AdaNorm."""

    def __init__(self, channels: int, norm: str, code: int = 0) -> None:
        super().__init__()
        self.norm = AdaNorm(channels, code, norm) if code else make_norm(norm, channels)
        self.first = ReflectConv(channels, channels, 3, bias=True)
        self.second = ReflectConv(channels, channels, 3, bias=True)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Map (N,C,H,W), and codes (N,Z) for a block with codes, to the same shape."""
        normed = self.norm(x) if code is None else self.norm(x, code)
        return x + self.second(F.silu(self.first(normed)))


class ContentEncoder(nn.Module):
    """Feature maps of frames at 1/2, 1/4 and 1/8 of the resolution.

    Args:
        channels: channels of the three levels.
        blocks: number of residual blocks of the three levels.
        norm: norm of the residual blocks, see :func:`~animegen.nn.norm.make_norm`.
        blur: blur before downsampling.
    """

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], norm: str, blur: bool) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.stem = ReflectConv(3, c1, 6, stride=2, bias=True)
        self.downs = nn.ModuleList([BlurDownsample(c1, c2, blur), BlurDownsample(c2, c3, blur)])
        self.blocks = nn.ModuleList(
            nn.Sequential(*(AdaptiveResBlock(c, norm) for _ in range(count)))
            for c, count in zip(channels, blocks, strict=True)
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Map (N,3,H,W) to three feature maps, fine to coarse."""
        maps = [self.blocks[0](self.stem(frames))]
        for down, blocks in zip(self.downs, list(self.blocks)[1:], strict=True):
            maps.append(blocks(down(maps[-1])))
        return maps


class TemporalDecoder(nn.Module):
    """Decoder from feature maps to images: bilinear upsampling, additive skips, residual blocks with the style code.

    There are only two thin layers at full resolution; with ``detail`` they also read the frame itself.

    Args:
        channels: channels at 1/2, 1/4 and 1/8 of the resolution.
        code: size of the style code.
        norm: norm of the residual blocks.
        skips: add the encoder's maps at 1/2 and 1/4.
        detail: add features of the frame at full resolution.
    """

    def __init__(self, channels: Sequence[int], code: int, norm: str, skips: bool, detail: bool) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.skips = skips
        self.up2, self.block2 = ReflectConv(c3, c2, 1, bias=True), AdaptiveResBlock(c2, norm, code)
        self.up1, self.block1 = ReflectConv(c2, c1, 1, bias=True), AdaptiveResBlock(c1, norm, code)
        self.head = ReflectConv(c1, DETAIL, 3, bias=True)
        self.detail = ReflectConv(3, DETAIL, 3, bias=True) if detail else None
        self.last = ReflectConv(DETAIL, 3, 3, bias=True)
        self.upsample = Upsample("bilinear")

    def forward(self, maps: list[Tensor], code: Tensor, frames: Tensor) -> Tensor:
        """Map maps at 1/2, 1/4, 1/8, codes (N,Z) and frames (N,3,H,W) to images (N,3,H,W) in [-1,1]."""
        half, quarter, eighth = maps
        x = self.upsample(self.up2(eighth))
        x = self.block2(x + quarter if self.skips else x, code)
        x = self.upsample(self.up1(x))
        x = self.block1(x + half if self.skips else x, code)
        x = self.upsample(self.head(x))
        if self.detail is not None:
            x = x + self.detail(frames)
        return torch.tanh(self.last(F.leaky_relu(x, SLOPE)))
