"""A U-Net conditioned on the time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.attention import SelfAttention
from animegen.nn.inbetween.base import group_norm, zero_init


class TimeEmbedding(nn.Module):
    """Embedding of times: sines and cosines of increasing frequency, then two linear layers.

    Args:
        channels: size of the embedding.
        frequencies: number of frequencies.
    """

    def __init__(self, channels: int, frequencies: int = 16) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(
            nn.Linear(2 * frequencies, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU()
        )

    def forward(self, t: Tensor) -> Tensor:
        """Map times (B,) in [0,1] to (B,channels); the frequencies rise from half a turn over [0,1] to 32 turns."""
        powers = torch.arange(self.frequencies, device=t.device) / max(self.frequencies - 1, 1)
        angles = t.float()[:, None] * math.pi * 64**powers
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))


class FiLMResBlock(nn.Module):
    """Residual block: (group norm, SiLU, 3x3 convolution) twice, scaled and shifted by the time in between (FiLM).

    Args:
        inputs: input channels.
        outputs: output channels.
        time: channels of the time embedding; 0 for a block without time conditioning.
        dropout: dropout probability before the second convolution.
    """

    def __init__(self, inputs: int, outputs: int, time: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = group_norm(outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.film = nn.Linear(time, 2 * outputs) if time else None
        self.drop = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """Map (B,inputs,H,W) and the embedding (B,time) to (B,outputs,H,W)."""
        y = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None:
            assert time is not None
            scale, shift = self.film(time)[:, :, None, None].chunk(2, 1)
            y = torch.addcmul(shift, y, 1 + scale)
        return self.conv2(self.drop(F.silu(y))) + self.shortcut(x)


class UNet(nn.Module):
    """U-Net with skip connections whose residual blocks are conditioned on the time.

    Args:
        inputs: input channels.
        outputs: output channels; the last convolution is initialised to 0.
        channels: channels of each level; the first has full resolution, each further one half of the one before.
        blocks: residual blocks per level, in the encoder and in the decoder.
        attention: self-attention at the coarsest level.
        dropout: dropout probability in the residual blocks.
        scale: 2 runs the whole network at half the resolution, in about a quarter of the time: the first convolution
            has stride 2, and the last one draws each square of four pixels (Shi et al. 2016). 1 does not.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        blocks: int = 1,
        attention: bool = False,
        dropout: float = 0.0,
        scale: int = 1,
    ) -> None:
        super().__init__()
        self.size_divisor = scale * 2 ** (len(channels) - 1)
        time = 2 * channels[0]
        self.embed = TimeEmbedding(time)
        self.first = nn.Conv2d(inputs, channels[0], 3, stride=scale, padding=1)

        def stage(before: int, after: int) -> nn.ModuleList:
            sizes = [before] + [after] * blocks
            return nn.ModuleList(FiLMResBlock(a, b, time, dropout) for a, b in pairwise(sizes))

        pairs = list(pairwise(channels))
        self.down_blocks = nn.ModuleList([stage(channels[0], channels[0]), *(stage(b, b) for _, b in pairs)])
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.attention = SelfAttention(channels[-1], window=16) if attention else nn.Identity()
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(pairs))
        self.up_blocks = nn.ModuleList(stage(2 * a, a) for a, _ in reversed(pairs))
        self.last = nn.Sequential(
            group_norm(channels[0]), nn.SiLU(), zero_init(nn.Conv2d(channels[0], scale**2 * outputs, 3, padding=1))
        )
        self.enlarge = nn.PixelShuffle(scale) if scale > 1 else nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Map (B,inputs,H,W) at times (B,) to (B,outputs,H,W)."""
        time = self.embed(t).to(x.dtype)
        x = self.first(x)
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.down_blocks):
            if level:
                x = self.downs[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, time)
            skips.append(x)
        x = self.attention(skips.pop())
        for up, blocks in zip(self.ups, self.up_blocks, strict=True):
            x = up(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            x = torch.cat([x, skips.pop()], 1)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x, time)
        return self.enlarge(self.last(x))
