"""A U-Net that knows the time: by itself an in-betweener, and the last stage of those that move pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.interpolation.networks.base import (
    Drawn,
    InbetweenNetwork,
    as_map,
    blend,
    bump,
    group_norm,
    silent,
)
from animegen.nn.attention import SelfAttention
from animegen.nn.conv import scale_channels


class TimeEmbedding(nn.Module):
    """Times (B,) as vectors (B,channels): sines and cosines of rising frequency, then two layers."""

    def __init__(self, channels: int, frequencies: int = 16) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(
            nn.Linear(2 * frequencies, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU()
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embed times in [0,1]; the slowest wave makes half a turn on the way, the fastest 32."""
        powers = torch.arange(self.frequencies, device=t.device) / max(self.frequencies - 1, 1)
        angles = t.float()[:, None] * math.pi * 64**powers
        return self.layers(torch.cat([angles.sin(), angles.cos()], 1))


class ResBlock(nn.Module):
    """Group norm, SiLU, 3x3 convolution, twice, plus a shortcut; the time scales and shifts in between (FiLM).

    Args:
        inputs: channels in.
        outputs: channels out.
        time: channels of the time embedding; 0 for a block that does not know the time.
        dropout: probability before the second convolution.
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
            y = y * (1 + scale) + shift
        return self.conv2(self.drop(F.silu(y))) + self.shortcut(x)


class UNet(nn.Module):
    """Encoder and decoder with skips; every block knows the time.

    Args:
        inputs: channels in.
        outputs: channels out; the last convolution begins at 0.
        channels: of each level, the first at full size, each next at half of it.
        blocks: residual blocks per level and side.
        attention: self-attention at the coarsest level.
        dropout: in the residual blocks.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: Sequence[int],
        blocks: int = 1,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.factor = 2 ** (len(channels) - 1)
        time = 2 * channels[0]
        self.embed = TimeEmbedding(time)
        self.first = nn.Conv2d(inputs, channels[0], 3, padding=1)

        def stage(before: int, after: int) -> nn.ModuleList:
            sizes = [before] + [after] * blocks
            return nn.ModuleList(ResBlock(a, b, time, dropout) for a, b in pairwise(sizes))

        pairs = list(pairwise(channels))
        self.down_blocks = nn.ModuleList([stage(channels[0], channels[0]), *(stage(b, b) for _, b in pairs)])
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        self.attention = SelfAttention(channels[-1], window=16) if attention else nn.Identity()
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(pairs))
        self.up_blocks = nn.ModuleList(stage(2 * a, a) for a, _ in reversed(pairs))
        self.last = nn.Sequential(
            group_norm(channels[0]), nn.SiLU(), silent(nn.Conv2d(channels[0], outputs, 3, padding=1))
        )

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
        return self.last(x)


class UNetInterpolator(InbetweenNetwork):
    """Direct synthesis: a U-Net sees both frames and the time, and draws what differs from their blend.

    It begins as the cross-fade exactly, and at t = 0 and t = 1 it always gives the frame itself (see ``bump``).

    Args:
        channels: of each level at width 1.
        blocks: residual blocks per level and side.
        attention: self-attention at the coarsest level.
        dropout: in the residual blocks.
        head: ``residual`` adds to the blend; ``direct`` draws the whole picture.
        width: factor on all channel counts.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512, 512),
        blocks: int = 2,
        attention: bool = False,
        dropout: float = 0.0,
        head: str = "residual",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        if head not in ("residual", "direct"):
            raise AnimegenError(f"The U-Net has no head '{head}': use residual or direct.")
        self.head = head
        sizes = [scale_channels(c, width) for c in channels]
        self.unet = UNet(7, 3, sizes, blocks, attention, dropout)
        self.factor = self.unet.factor

    def synthesize(self, state: dict[str, Any], t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,)."""
        first, last = state["first"], state["last"]
        drawn = self.unet(torch.cat([first, last, as_map(t, first)], 1), t)
        if self.head == "direct":
            return Drawn(torch.tanh(drawn), {})
        return Drawn(blend(first, last, t) + bump(t, drawn) * drawn, {})
