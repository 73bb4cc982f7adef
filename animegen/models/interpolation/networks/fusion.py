"""Fusion of two latent maps at time t."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.inbetween.base import blend, time_map, zero_init
from animegen.nn.inbetween.unet import FiLMResBlock, TimeEmbedding
from animegen.nn.precision import at_least_float32
from animegen.nn.warp import backward_warp

FUSIONS = ("lerp", "slerp", "conv", "attn", "warp")


def make_fusion(kind: str, channels: int, hidden: int) -> nn.Module:
    """Build a module that maps latents z0, z1 (B,channels,h,w) and times t (B,) to z_t.

    Args:
        kind: ``lerp`` or ``slerp`` (no parameters), ``conv`` (a learned residual to lerp, local), ``attn`` (attention
            to all positions of both maps), or ``warp`` (warps both maps, then ``conv``).
        channels: channels of the latents.
        hidden: hidden channels, a multiple of 8.

    Raises:
        AnimegenError: if there is no such fusion.
    """
    if kind not in FUSIONS:
        raise AnimegenError(
            f"There is no fusion '{kind}': use one of {', '.join(FUSIONS)}.{did_you_mean(kind, FUSIONS)}"
        )
    if kind == "lerp":
        return Lerp()
    if kind == "slerp":
        return Slerp()
    if kind == "conv":
        return ConvFusion(channels, hidden)
    return AttentionFusion(channels, hidden) if kind == "attn" else WarpFusion(channels, hidden)


class Lerp(nn.Module):
    """Linear interpolation ``(1 - t) z0 + t z1``."""

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        return blend(z0, z1, t)


class Slerp(nn.Module):
    """Spherical interpolation of the vectors at each position; linear where they are nearly parallel or opposite."""

    SMALLEST = 2e-3  # radians

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        a, b = at_least_float32(z0), at_least_float32(z1)
        cosine = F.cosine_similarity(a, b, dim=1, eps=1e-8).unsqueeze(1)
        # At +-1 the slope of acos is infinite.
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        weight = t.to(a.dtype).view(-1, 1, 1, 1)
        sine = angle.sin()
        arc = (((1 - weight) * angle).sin() * a + (weight * angle).sin() * b) / sine
        # The arc between opposite vectors is not defined.
        linear = (angle < self.SMALLEST) | (angle > torch.pi - self.SMALLEST)
        return torch.where(linear, torch.lerp(a, b, weight.expand_as(a)), arc).to(z0.dtype)


class ConvFusion(nn.Module):
    """Time-conditioned residual blocks on both latents and their difference; initially equal to lerp."""

    def __init__(self, channels: int, hidden: int, blocks: int = 4) -> None:
        super().__init__()
        self.embed = TimeEmbedding(2 * hidden)
        self.first = nn.Conv2d(3 * channels + 1, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(FiLMResBlock(hidden, hidden, 2 * hidden) for _ in range(blocks))
        self.last = zero_init(nn.Conv2d(hidden, channels, 3, padding=1))

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        x = self.first(torch.cat([z0, z1, (z0 - z1).abs(), time_map(t, z0)], 1))
        time = self.embed(t).to(x.dtype)
        for block in self.blocks:
            x = block(x, time)
        return blend(z0, z1, t) + self.last(x)


class AttentionFusion(nn.Module):
    """Cross-attention from each position of lerp to all positions of both latents; initially equal to lerp.

    Positions are encoded by sines and cosines of their coordinates, frames by a learned vector. Attention covers all
    2 h w positions, so this fusion is meant for small latents.

    Args:
        channels: channels of the latents.
        hidden: channels of the tokens, a multiple of 8.
        blocks: number of attention blocks.
    """

    def __init__(self, channels: int, hidden: int, blocks: int = 2) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, max(1, hidden // 32)
        self.project = nn.Conv2d(channels, hidden, 1)
        self.frame = nn.Parameter(torch.randn(2, hidden) * 0.02)
        self.embed = TimeEmbedding(hidden)
        self.queries = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.memory = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2 * blocks))
        self.mix = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))
            for _ in range(blocks)
        )
        self.last = zero_init(nn.Conv2d(hidden, channels, 1))

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        height, width = z0.shape[-2:]
        linear = blend(z0, z1, t)
        position = _position_encoding(height, width, self.hidden, z0)
        tokens = [self.project(z).flatten(2).transpose(1, 2) + position for z in (z0, z1, linear)]
        memory = torch.cat([tokens[0] + self.frame[0], tokens[1] + self.frame[1]], 1)
        x = tokens[2] + self.embed(t).to(z0.dtype)[:, None]
        for number, (query, source, mix) in enumerate(zip(self.queries, self.memory, self.mix, strict=True)):
            key, value = source(memory).chunk(2, -1)
            queries = self._split(query(self.norms[2 * number](x)))
            read = F.scaled_dot_product_attention(queries, self._split(key), self._split(value))
            x = x + read.transpose(1, 2).flatten(2)
            x = x + mix(self.norms[2 * number + 1](x))
        return linear + self.last(x.transpose(1, 2).unflatten(2, (height, width)))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class WarpFusion(nn.Module):
    """Warps both latents to t by a flow predicted from them, then fuses by convolutions; initially equal to lerp."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.embed = TimeEmbedding(2 * hidden)
        self.first = nn.Conv2d(2 * channels + 1, hidden, 3, padding=1)
        self.block = FiLMResBlock(hidden, hidden, 2 * hidden)
        self.flow = zero_init(nn.Conv2d(hidden, 4, 3, padding=1))
        self.fuse = ConvFusion(channels, hidden, blocks=2)

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        x = self.first(torch.cat([z0, z1, time_map(t, z0)], 1))
        flow = self.flow(self.block(x, self.embed(t).to(x.dtype)))
        weight = t.to(flow.dtype).view(-1, 1, 1, 1)
        early = backward_warp(z0, weight * flow[:, :2])
        late = backward_warp(z1, (1 - weight) * flow[:, 2:])
        return self.fuse(early, late, t)


def _position_encoding(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Return sines and cosines of the coordinates of a map, (1,height*width,channels); channels is a multiple of 4."""
    count = channels // 4
    rates = 100.0 ** -(torch.arange(count, device=like.device) / max(count, 1))
    rows = torch.arange(height, device=like.device)[:, None, None] * rates
    columns = torch.arange(width, device=like.device)[None, :, None] * rates
    waves = [rows.sin(), rows.cos(), columns.sin(), columns.cos()]
    return torch.cat([w.expand(height, width, count) for w in waves], -1).flatten(0, 1)[None].to(like.dtype)
