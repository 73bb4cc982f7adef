"""The body of GPT-2 (Radford et al. 2019) in plain torch: pre-norm blocks of attention and a two-layer network.

It knows nothing of codes, frames or masks: vectors come in, vectors go out. Dimensions, names of the parts and the
initialisation are those of the paper, so that its weights can be loaded (see `gpt2`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.cache import Cache
from animegen.models.ganime.networks.products import attended, linear

Turn = tuple[Tensor, Tensor]
"""Cosines and sines by which the pairs of a head's numbers are turned, each broadcastable to (B,heads,S,size/2)."""


class Attention(nn.Module):
    """Attention of several heads; queries, keys and values come from one matrix."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        turns: tuple[Turn, Turn] | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Map (B,S,dim) to the same shape; see `Body.forward` for the arguments."""
        batch, length, dim = x.shape
        # (3,B,heads,S,size): one view for all three.
        query, key, value = linear(self.qkv, x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if turns is not None:
            query, key = turned(query, turns[0]), turned(key, turns[1])
        if cache is not None:
            key, value = cache.write(layer, key, value)
            query = query.to(key.dtype)
        read = attended(query, key, value, mask, self.dropout if self.training else 0.0)
        return linear(self.out, read.transpose(1, 2).reshape(batch, length, dim).to(x.dtype))


class Block(nn.Module):
    """Attention and a network of one hidden layer of four times the width, each around a norm and added."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads, dropout)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        turns: tuple[Turn, Turn] | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Map (B,S,dim) to the same shape; see `Body.forward` for the arguments."""
        read = self.attention(self.norm1(x), mask, turns, cache, layer)
        x = x + (self.dropout(read) if self.training else read)
        made = linear(self.down, linear(self.up, self.norm2(x), gelu=True))
        return x + (self.dropout(made) if self.training else made)


class Body(nn.Module):
    """Blocks, and a norm at the end.

    Args:
        layers: number of blocks.
        heads: of attention in each block.
        dim: width; a multiple of twice the number of heads.
        dropout: of attention and of what blocks add.

    Raises:
        AnimegenError: if the width does not divide.
    """

    def __init__(self, layers: int, heads: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise AnimegenError(f"dim={dim} is no multiple of twice heads={heads}: change one of them.")
        self.heads, self.size = heads, dim // heads
        self.blocks = nn.ModuleList(Block(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.apply(_initialise)
        for block in self.blocks:
            for last in (block.attention.out, block.down):  # type: ignore[union-attr]
                # So that the sum over all blocks begins with the variance of one (GPT-2, section 2.3).
                nn.init.normal_(last.weight, std=0.02 / (2 * layers) ** 0.5)  # type: ignore[arg-type,union-attr]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        turns: tuple[Turn, Turn] | None = None,
        cache: Cache | None = None,
        keep: bool = True,
    ) -> Tensor:
        """Map (B,S,dim) to the same shape.

        Args:
            x: vectors of the tokens.
            mask: bool (S, S + kept), true where a token may look; ``None`` lets every token see all.
            turns: rotary positions of queries and of keys, see `turned`.
            cache: what was read before; the tokens of ``x`` come behind it.
            keep: keep the tokens of ``x`` in the cache.
        """
        for number, block in enumerate(self.blocks):
            x = block(x, mask, turns, cache, number)
        if cache is not None and keep:
            cache.length += x.shape[1]
        return self.norm(x)

    def new_cache(self, batch: int, length: int, like: Tensor) -> Cache:
        """Return an empty cache for so many tokens."""
        return Cache(len(self.blocks), batch, self.heads, length, self.size, like)


def turned(x: Tensor, turn: Turn) -> Tensor:
    """Turn the pairs (i, i + size/2) of (B,heads,S,size) by the angles of their token (RoPE, Su et al. 2021)."""
    cosine, sine = turn
    real, imaginary = x.chunk(2, dim=-1)
    return torch.cat([real * cosine - imaginary * sine, imaginary * cosine + real * sine], dim=-1).to(x.dtype)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
