"""The blocks of GPT-2 (Radford et al. 2019): pre-norm self-attention and a two-layer MLP.

Dimensions, structure and initialisation are those of the paper, so that its weights can be loaded (see :mod:`.gpt2`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.cache import KeyValueCache
from animegen.models.ganime.networks.cpu_kernels import attention, linear

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of rotary position embeddings, each broadcastable to (B,heads,S,size/2)."""


class MultiHeadAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotations: tuple[Rotation, Rotation] | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Map (B,S,dim) to the same shape; see :meth:`GPTBackbone.forward` for the arguments."""
        batch, length, dim = x.shape
        # (3,B,heads,S,size) as one view.
        query, key, value = linear(self.qkv, x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if rotations is not None:
            query, key = rotated(query, rotations[0]), rotated(key, rotations[1])
        if cache is not None:
            key, value = cache.write(layer, key, value)
            query = query.to(key.dtype)
        attended = attention(query, key, value, mask, self.dropout if self.training else 0.0)
        return linear(self.out, attended.transpose(1, 2).reshape(batch, length, dim).to(x.dtype))


class TransformerBlock(nn.Module):
    """Self-attention and an MLP with four times the width, each with a norm before it and a residual connection."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = MultiHeadAttention(dim, heads, dropout)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotations: tuple[Rotation, Rotation] | None = None,
        cache: KeyValueCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Map (B,S,dim) to the same shape; see :meth:`GPTBackbone.forward` for the arguments."""
        attended = self.attention(self.norm1(x), mask, rotations, cache, layer)
        x = x + (self.dropout(attended) if self.training else attended)
        hidden = linear(self.down, linear(self.up, self.norm2(x), gelu=True))
        return x + (self.dropout(hidden) if self.training else hidden)


class GPTBackbone(nn.Module):
    """A stack of transformer blocks, followed by a norm.

    Args:
        layers: number of blocks.
        heads: attention heads per block.
        dim: width; a multiple of twice the number of heads.
        dropout: dropout probability of attention weights and of the residual branches.

    Raises:
        AnimegenError: if the width is not such a multiple.
    """

    def __init__(self, layers: int, heads: int, dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise AnimegenError(f"dim={dim} is not a multiple of twice heads={heads}: change one of them.")
        self.heads, self.size = heads, dim // heads
        self.blocks = nn.ModuleList(TransformerBlock(dim, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.apply(_initialise)
        for block in self.blocks:
            for last in (block.attention.out, block.down):  # type: ignore[union-attr]
                # So that the variance of the residual stream does not grow with depth (GPT-2, section 2.3).
                nn.init.normal_(last.weight, std=0.02 / (2 * layers) ** 0.5)  # type: ignore[arg-type,union-attr]

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        rotations: tuple[Rotation, Rotation] | None = None,
        cache: KeyValueCache | None = None,
        keep: bool = True,
    ) -> Tensor:
        """Map (B,S,dim) to the same shape.

        Args:
            x: vectors of the tokens.
            mask: bool (S, cached + S), true where a token may attend; ``None`` for everywhere.
            rotations: rotary positions of queries and of keys, see :func:`rotated`.
            cache: keys and values of earlier tokens; the tokens of ``x`` follow them.
            keep: keep the tokens of ``x`` in the cache.
        """
        for number, block in enumerate(self.blocks):
            x = block(x, mask, rotations, cache, number)
        if cache is not None and keep:
            cache.length += x.shape[1]
        return self.norm(x)

    def new_cache(self, batch: int, length: int, like: Tensor) -> KeyValueCache:
        """Return an empty cache for ``length`` tokens with the device and dtype of ``like``."""
        return KeyValueCache(len(self.blocks), batch, self.heads, length, self.size, like)


def rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotate the pairs (i, i + size/2) of (B,heads,S,size) by the angles of their token (RoPE, Su et al. 2021)."""
    cosine, sine = rotation
    real, imaginary = x.chunk(2, dim=-1)
    return torch.cat([real * cosine - imaginary * sine, imaginary * cosine + real * sine], dim=-1).to(x.dtype)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
