"""The network of the transformer: from token sequences to hidden vectors, codes and motion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.cache import KeyValueCache
from animegen.models.ganime.networks.decoding import DecodingStrategy
from animegen.models.ganime.networks.gpt import GPTBackbone, Rotation
from animegen.models.ganime.networks.merging import Squares, TokenMerging, merged_mask, merged_rotations
from animegen.models.ganime.networks.motion import MotionHead
from animegen.models.ganime.networks.pixels import PairFeatures, PixelContext
from animegen.models.ganime.networks.tokens import SEGMENTS, SPECIALS, TokenSequence

#: Base of the angles of rotary positions. RoPE has 10000 for thousands of positions; clips have dozens per axis.
ROTARY_BASE = 100.0

Images = tuple[Tensor, Tensor]
"""The first and the last frame of clips, (B,3,H,W) each, in [-1,1]."""


class TokenNetwork(nn.Module):
    """Embeddings, the blocks of GPT-2, and output layers.

    Args:
        codes: see :class:`~animegen.models.ganime.networks.transformer.CodeTransformer`.
        grid: likewise.
        max_frames: likewise.
        layers: likewise.
        heads: likewise.
        dim: likewise.
        strategy: the decoding strategy.
        position: see there.
        dropout: likewise.
        tied: likewise.
        pixels: likewise.
        motion: likewise.
        divisor: likewise.
        merge: likewise.

    Raises:
        AnimegenError: for settings that do not exist or cannot be combined.
    """

    def __init__(
        self,
        codes: int,
        grid: tuple[int, int],
        max_frames: int,
        layers: int,
        heads: int,
        dim: int,
        strategy: DecodingStrategy,
        position: str,
        dropout: float,
        tied: bool,
        pixels: Mapping[str, Any] | None,
        motion: Mapping[str, Any] | None,
        divisor: int,
        merge: int = 1,
    ) -> None:
        super().__init__()
        self.codes, self.grid, self.max_frames = codes, (int(grid[0]), int(grid[1])), max_frames
        self.strategy, self.position = strategy, position
        self.code_embedding = nn.Embedding(codes, dim)
        self.special_embedding = nn.Embedding(SPECIALS, dim)
        self.segment_embedding = nn.Embedding(SEGMENTS, dim)
        self.remaining_embedding = nn.Embedding(max_frames + 1, dim)
        sizes: dict[str, int] = {}
        if position == "learned":
            axes = {"frame": max_frames, "row": self.grid[0], "column": self.grid[1]}
            targets = {f"target_{axis}": size for axis, size in axes.items()}
            sizes = axes | (targets if self.strategy.shifted else {})
        elif position == "learned1d":
            sizes = {"index": self.strategy.max_length(max_frames, self.grid[0] * self.grid[1])}
        elif position != "rope3d":
            raise AnimegenError(f"position={position} is unknown: use learned, learned1d or rope3d.")
        self.position_embeddings = nn.ModuleDict({name: nn.Embedding(size, dim) for name, size in sizes.items()})
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.backbone = GPTBackbone(layers, heads, dim, dropout)
        self.merging = None if merge == 1 else TokenMerging(dim, merge)
        self.head = nn.Linear(dim, codes, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        if tied:
            self.head.weight = self.code_embedding.weight
        self.pixels = None
        if pixels is not None:
            self.pixels = PairFeatures(dim, divisor, **pixels)
        #: Predicts the motion from which the renderer starts.
        self.motion = None
        if motion is not None:
            if self.pixels is None:
                raise AnimegenError("motion= needs the pixels of the given frames: set pixels=, too.")
            self.motion = MotionHead(dim, divisor, self.pixels.channels, self.pixels.hidden, **motion)

    def read(
        self,
        tokens: TokenSequence,
        mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
        keep: bool = True,
        context: PixelContext | None = None,
    ) -> Tensor:
        """Return the hidden vectors (R,S,dim) of token sequences; see :meth:`GPTBackbone.forward`."""
        positions, rotations = self.embed_positions(tokens)
        vectors = F.embedding(tokens.ids, self.token_table()) + positions
        if context is not None:
            vectors = vectors + context.at(tokens.positions, tokens.segments, len(vectors))
        vectors = self.dropout(vectors)
        if self.merging is None:
            return self.backbone(vectors, mask, rotations, cache, keep)
        squares = Squares.of(tokens.positions, self.merging.side)
        kept = squares.kept(vectors.shape[1], vectors.device)
        mask, rotations = merged_mask(mask, kept), merged_rotations(rotations, kept)
        hidden = self.backbone(self.merging.merged(vectors, squares), mask, rotations, cache, keep)
        return self.merging.whole(hidden, vectors, squares)

    def context(self, images: Images | None, first: Tensor, last: Tensor) -> PixelContext | None:
        """Return the features of the pixels and codes (B,h,w) of both given frames, if the transformer reads pixels."""
        if self.pixels is None:
            return None
        if images is None:
            raise AnimegenError("This transformer reads the pixels of the given frames, not only their codes.")
        codes = self.code_embedding(torch.stack([first, last], 3)).flatten(3).permute(0, 3, 1, 2)
        return PixelContext(*self.pixels(*images, codes))

    def predict(self, hidden: Tensor) -> Tensor:
        """Return the logits (...,K) of hidden vectors (...,dim)."""
        return self.head(hidden)

    def token_table(self) -> Tensor:
        """Return the embedding of all codes and special tokens, (K + specials,dim)."""
        return torch.cat([self.code_embedding.weight, self.special_embedding.weight])

    def embed_positions(self, tokens: TokenSequence) -> tuple[Tensor, tuple[Rotation, Rotation] | None]:
        """Return the part of the token vectors that does not depend on the ids, and rotary angles if any.

        The vectors are (S,dim), or (R,S,dim) if the sequences differ in their positions.
        """
        known = (tokens.remaining >= 0).unsqueeze(-1)
        remaining = self.remaining_embedding(tokens.remaining.clamp_min(0))
        vectors = self.segment_embedding(tokens.segments) + remaining * known
        if self.position == "learned1d":
            return vectors + self.position_embeddings["index"](tokens.index), None
        targets = tokens.positions if tokens.targets is None else tokens.targets
        if self.position == "rope3d":
            return vectors, (self._rotation(targets), self._rotation(tokens.positions))
        for number, axis in enumerate(("frame", "row", "column")):
            vectors = vectors + self.position_embeddings[axis](tokens.positions[..., number])
            if self.strategy.shifted:
                vectors = vectors + self.position_embeddings[f"target_{axis}"](targets[..., number])
        return vectors, None

    def _rotation(self, positions: Tensor) -> Rotation:
        """Return cosines and sines for positions ([R,]S,3); each axis rotates a third of the channel pairs."""
        pairs = self.backbone.size // 2
        counts = [pairs // 3, pairs // 3, pairs - 2 * (pairs // 3)]  # for frame, row, column
        parts = [
            positions[..., axis : axis + 1] * ROTARY_BASE ** (-torch.arange(count, device=positions.device) / count)
            for axis, count in enumerate(counts)
        ]
        angles = torch.cat(parts, -1)
        angles = angles.unsqueeze(1) if angles.ndim == 3 else angles  # the same for all heads
        return angles.cos(), angles.sin()

    def new_cache(self, rows: int, length: int, single: bool = False) -> KeyValueCache:
        """Return an empty cache for ``length`` tokens per sequence; ``single``: tokens are read one at a time."""
        like = self.head.weight
        # On a CPU, attention of a single query takes a fifth of the time in float32: the kernels for bfloat16 are
        # optimised for many queries.
        return self.backbone.new_cache(rows, length, like.float() if single and like.device.type == "cpu" else like)

    def check(self, clips: Tensor) -> None:
        """Check the size of clips (B,T,h,w).

        Raises:
            AnimegenError: if they are longer or larger than the position embeddings.
        """
        frames, height, width = clips.shape[1:]
        if frames > self.max_frames:
            raise AnimegenError(
                f"A clip of {frames} frames is longer than this transformer supports: at most {self.max_frames}"
                " (max_frames)."
            )
        if height > self.grid[0] or width > self.grid[1]:
            raise AnimegenError(
                f"A grid of {height}x{width} codes is larger than this transformer supports: at most"
                f" {self.grid[0]}x{self.grid[1]} (grid)."
            )


class PixelReader:
    """A transformer together with the pixels of the given frames, as decoding strategies use it."""

    def __init__(self, model: TokenNetwork, context: PixelContext | None) -> None:
        self.codes, self.backbone, self.new_cache = model.codes, model.backbone, model.new_cache
        self.predict, self.token_table, self.embed_positions = model.predict, model.token_table, model.embed_positions
        self._model, self._context = model, context

    def read(
        self, tokens: TokenSequence, mask: Tensor | None = None, cache: KeyValueCache | None = None, keep: bool = True
    ) -> Tensor:
        """Return the hidden vectors (R,S,dim) of token sequences."""
        return self._model.read(tokens, mask, cache, keep, self._context)
