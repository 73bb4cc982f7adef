"""What lies between two latent maps at time t: five ways to put them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.interpolation.networks.base import as_map, blend, silent
from animegen.models.interpolation.networks.unet import ResBlock, TimeEmbedding
from animegen.nn.precision import at_least_float32
from animegen.nn.warp import backward_warp

FUSIONS = ("lerp", "slerp", "conv", "attn", "warp")


def make_fusion(kind: str, channels: int, hidden: int) -> nn.Module:
    """Return a fusion of latents (B,channels,h,w): called with z0, z1 and t (B,), it returns z_t.

    Args:
        kind: ``lerp`` and ``slerp`` (fixed, no weights), ``conv`` (learns what differs from lerp, where it is),
            ``attn`` (looks things up anywhere in both maps), ``warp`` (moves both maps first, then ``conv``).
        channels: of the latents.
        hidden: channels inside; a multiple of 8.

    Raises:
        AnimegenError: if there is no such fusion.
    """
    if kind not in FUSIONS:
        raise AnimegenError(
            f"There is no fusion '{kind}': choose one of {', '.join(FUSIONS)}.{did_you_mean(kind, FUSIONS)}"
        )
    if kind == "lerp":
        return Lerp()
    if kind == "slerp":
        return Slerp()
    if kind == "conv":
        return ConvFusion(channels, hidden)
    return AttentionFusion(channels, hidden) if kind == "attn" else WarpFusion(channels, hidden)


class Lerp(nn.Module):
    """The straight way: ``(1 - t) z0 + t z1``."""

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        return blend(z0, z1, t)


class Slerp(nn.Module):
    """The way along the arc between the two vectors at each place; straight where they nearly agree."""

    SMALLEST = 2e-3  # radians

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        a, b = at_least_float32(z0), at_least_float32(z1)
        cosine = F.cosine_similarity(a, b, dim=1, eps=1e-8).unsqueeze(1)
        # Not to +-1, where the slope of acos is infinite.
        angle = cosine.clamp(-1 + 1e-6, 1 - 1e-6).acos()
        share = t.to(a.dtype).view(-1, 1, 1, 1)
        sine = angle.sin()
        arc = (((1 - share) * angle).sin() * a + (share * angle).sin() * b) / sine
        # Opposite vectors have no arc; there, too, the straight way is taken.
        plain = (angle < self.SMALLEST) | (angle > torch.pi - self.SMALLEST)
        return torch.where(plain, torch.lerp(a, b, share.expand_as(a)), arc).to(z0.dtype)


class ConvFusion(nn.Module):
    """Residual blocks that know the time, on both latents and their difference; begins as lerp."""

    def __init__(self, channels: int, hidden: int, blocks: int = 4) -> None:
        super().__init__()
        self.embed = TimeEmbedding(2 * hidden)
        self.first = nn.Conv2d(3 * channels + 1, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResBlock(hidden, hidden, 2 * hidden) for _ in range(blocks))
        self.last = silent(nn.Conv2d(hidden, channels, 3, padding=1))

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        x = self.first(torch.cat([z0, z1, (z0 - z1).abs(), as_map(t, z0)], 1))
        time = self.embed(t).to(x.dtype)
        for block in self.blocks:
            x = block(x, time)
        return blend(z0, z1, t) + self.last(x)


class AttentionFusion(nn.Module):
    """Every place of lerp looks up what it needs in both latents, wherever it lies; begins as lerp.

    Places are known by sines and cosines of their coordinates, frames by a learned vector. Attention is over all places
    (2 h w of them), so it is for small latents.

    Args:
        channels: of the latents.
        hidden: of the tokens, a multiple of 8 and at least 8.
        blocks: attention blocks.
    """

    def __init__(self, channels: int, hidden: int, blocks: int = 2) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, max(1, hidden // 32)
        self.inside = nn.Conv2d(channels, hidden, 1)
        self.frame = nn.Parameter(torch.randn(2, hidden) * 0.02)
        self.embed = TimeEmbedding(hidden)
        self.queries = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(blocks))
        self.memory = nn.ModuleList(nn.Linear(hidden, 2 * hidden) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(2 * blocks))
        self.mix = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden))
            for _ in range(blocks)
        )
        self.last = silent(nn.Conv2d(hidden, channels, 1))

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        height, width = z0.shape[-2:]
        straight = blend(z0, z1, t)
        place = _places(height, width, self.hidden, z0)
        tokens = [self.inside(z).flatten(2).transpose(1, 2) + place for z in (z0, z1, straight)]
        memory = torch.cat([tokens[0] + self.frame[0], tokens[1] + self.frame[1]], 1)
        x = tokens[2] + self.embed(t).to(z0.dtype)[:, None]
        for number, (query, source, mix) in enumerate(zip(self.queries, self.memory, self.mix, strict=True)):
            key, value = source(memory).chunk(2, -1)
            asked = self._split(query(self.norms[2 * number](x)))
            read = F.scaled_dot_product_attention(asked, self._split(key), self._split(value))
            x = x + read.transpose(1, 2).flatten(2)
            x = x + mix(self.norms[2 * number + 1](x))
        return straight + self.last(x.transpose(1, 2).unflatten(2, (height, width)))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class WarpFusion(nn.Module):
    """Moves both latents to t by a flow that it reads off them, then fuses by convolutions; begins as lerp."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.embed = TimeEmbedding(2 * hidden)
        self.first = nn.Conv2d(2 * channels + 1, hidden, 3, padding=1)
        self.block = ResBlock(hidden, hidden, 2 * hidden)
        self.flow = silent(nn.Conv2d(hidden, 4, 3, padding=1))
        self.fuse = ConvFusion(channels, hidden, blocks=2)

    def forward(self, z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
        """Fuse (B,C,h,w) at times (B,)."""
        x = self.first(torch.cat([z0, z1, as_map(t, z0)], 1))
        flow = self.flow(self.block(x, self.embed(t).to(x.dtype)))
        share = t.to(flow.dtype).view(-1, 1, 1, 1)
        early = backward_warp(z0, share * flow[:, :2])
        late = backward_warp(z1, (1 - share) * flow[:, 2:])
        return self.fuse(early, late, t)


def _places(height: int, width: int, channels: int, like: Tensor) -> Tensor:
    """Return sines and cosines of the coordinates of a map, (1,height*width,channels); channels a multiple of 4."""
    count = channels // 4
    rates = 100.0 ** -(torch.arange(count, device=like.device) / max(count, 1))
    rows = torch.arange(height, device=like.device)[:, None, None] * rates
    columns = torch.arange(width, device=like.device)[None, :, None] * rates
    waves = [rows.sin(), rows.cos(), columns.sin(), columns.cos()]
    return torch.cat([w.expand(height, width, count) for w in waves], -1).flatten(0, 1)[None].to(like.dtype)
