"""Fewer, larger tokens in the blocks of the transformer: squares of codes are merged before them and split after."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.gpt import Rotation


class Squares(NamedTuple):
    """Where the codes of a token sequence lie: ``single`` tokens first, then frames of h x w codes in raster order.

    Attributes:
        single: tokens before the first frame, such as the length token. They are not merged.
        height: h.
        width: w.
        side: codes along the side of a square.
    """

    single: int
    height: int
    width: int
    side: int

    @classmethod
    def of(cls, positions: Tensor, side: int) -> Squares:
        """Return the layout of a sequence that ends with whole frames, from its positions (S,3).

        Raises:
            AnimegenError: if a frame cannot be divided into squares.
        """
        height, width = (int(size) + 1 for size in positions[-1, 1:])
        if height % side or width % side:
            raise AnimegenError(
                f"A grid of {height}x{width} codes cannot be divided into squares of {side}x{side}"
                f" (model.transformer.merge): use images whose sides are multiples of {side} codes."
            )
        return cls(len(positions) % (height * width), height, width, side)

    def gathered(self, tokens: Tensor) -> Tensor:
        """Return the codes of frames (R,S',C) square by square, (R,S'/side^2,side^2,C), without single tokens."""
        rows, _, channels = tokens.shape
        side = self.side
        parts = tokens.reshape(rows, -1, self.height // side, side, self.width // side, side, channels)
        return parts.transpose(3, 4).reshape(rows, -1, side * side, channels)

    def scattered(self, squares: Tensor) -> Tensor:
        """Invert :meth:`gathered`."""
        rows, _, _, channels = squares.shape
        side = self.side
        parts = squares.reshape(rows, -1, self.height // side, self.width // side, side, side, channels)
        return parts.transpose(3, 4).reshape(rows, -1, channels)

    def kept(self, length: int, device: torch.device) -> Tensor:
        """Return the indices (S'',) of all single tokens and of the first code of each square, S'' merged tokens."""
        index = torch.arange(length, device=device)
        first = self.gathered(index[self.single :].view(1, -1, 1))[0, :, 0, 0]
        return torch.cat([index[: self.single], first])


class TokenMerging(nn.Module):
    """Merge squares of tokens before the blocks, and split them after, with a connection around the blocks.

    Codes of 4x4 pixels are four times as many as those of 8x8, so the blocks take more than four times as long. With
    merged tokens they take the same time as for larger codes, and each code is still read and predicted: the hourglass
    of Nawrot et al. (2022), with two-dimensional squares. The vectors of a square are concatenated and projected.

    Args:
        dim: channels of tokens.
        side: codes along the side of a square.
    """

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.merge, self.split = nn.Linear(side**2 * dim, dim), nn.Linear(dim, side**2 * dim)
        self.norm = nn.LayerNorm(dim)
        for layer in (self.merge, self.split):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def merged(self, vectors: Tensor, squares: Squares) -> Tensor:
        """Return the merged tokens (R,S'',dim) of tokens (R,S,dim)."""
        codes = self.merge(squares.gathered(vectors[:, squares.single :]).flatten(2))
        return torch.cat([vectors[:, : squares.single].to(codes.dtype), codes], 1)

    def whole(self, hidden: Tensor, vectors: Tensor, squares: Squares) -> Tensor:
        """Return the hidden vectors (R,S,dim) of all tokens from those of merged ones (R,S'',dim).

        Args:
            hidden: output of the blocks.
            vectors: the tokens before they were merged, (R,S,dim).
            squares: the layout.
        """
        single, codes = hidden[:, : squares.single], hidden[:, squares.single :]
        parts = self.split(codes).unflatten(2, (self.side**2, -1))
        found = torch.cat([single.to(parts.dtype), squares.scattered(parts)], 1)
        return self.norm(vectors + found)


def merged_mask(mask: Tensor | None, kept: Tensor) -> Tensor | None:
    """Return the mask (S'',S'') of merged tokens; all codes of a square attend and are attended to alike."""
    return None if mask is None else mask[kept][:, kept]


def merged_rotations(rotations: tuple[Rotation, Rotation] | None, kept: Tensor) -> tuple[Rotation, Rotation] | None:
    """Return the rotary angles of merged tokens, those of the first code of each square."""
    if rotations is None:
        return None
    queries, keys = ((cosine.index_select(-2, kept), sine.index_select(-2, kept)) for cosine, sine in rotations)
    return queries, keys
