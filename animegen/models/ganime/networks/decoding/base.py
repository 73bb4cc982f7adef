"""Interface of decoding strategies, and the protocol of their transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from animegen.models.ganime.networks.cache import KeyValueCache
from animegen.models.ganime.networks.gpt import GPTBackbone, Rotation
from animegen.models.ganime.networks.sampling import CodeSampler
from animegen.models.ganime.networks.tokens import (
    BETWEEN,
    FIRST,
    KEY,
    LAST,
    LENGTH,
    TokenSequence,
    TrainingBatch,
    frame_positions,
)


class CodePredictor(Protocol):
    """The parts of :class:`~animegen.models.ganime.networks.transformer.CodeTransformer` that decoding uses.

    Attributes:
        codes: size K of the codebook, and the id of the first special token.
        backbone: the blocks.
    """

    codes: int
    backbone: GPTBackbone

    def new_cache(self, rows: int, length: int, single: bool = False) -> KeyValueCache:
        """Return an empty cache for ``length`` tokens per sequence; ``single``: tokens are read one at a time."""
        ...

    def read(
        self, tokens: TokenSequence, mask: Tensor | None = None, cache: KeyValueCache | None = None, keep: bool = True
    ) -> Tensor:
        """Return the hidden vectors (R,S,dim) of token sequences."""
        ...

    def predict(self, hidden: Tensor) -> Tensor:
        """Return the logits (...,K) of hidden vectors (...,dim)."""
        ...

    def token_table(self) -> Tensor:
        """Return the vectors of all codes and special tokens, (K + specials,dim)."""
        ...

    def embed_positions(self, tokens: TokenSequence) -> tuple[Tensor, tuple[Rotation, Rotation] | None]:
        """Return the part of the token vectors that does not depend on the ids, and rotary angles if any."""
        ...


class DecodingStrategy(ABC):
    """An order of prediction: builds training sequences from clips, and fills clips in generation.

    Attributes:
        shifted: whether tokens predict the code of another position than their own.
        reads_generated: whether generated codes are context of later predictions, as scheduled sampling requires.
        reads_pixels: whether tokens can hold features of the pixels of the given frames.
        supports_keys: whether frames can attend to later key frames.
    """

    shifted = False
    reads_generated = True
    reads_pixels = False
    supports_keys = True

    @abstractmethod
    def max_length(self, frames: int, cells: int) -> int:
        """Return the length of the longest sequence for clips of ``frames`` frames of ``cells`` codes."""

    @abstractmethod
    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of sequential passes through the transformer that generate a clip.

        Passes over the given frames, and over finished frames, do not count.

        Args:
            frames: length of the clip, including both given frames.
            cells: codes per frame.
            steps: passes of iterative strategies; ``None`` for the strategy's own number.
        """

    @abstractmethod
    def training_batch(
        self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None
    ) -> TrainingBatch:
        """Return the sequences of a training step.

        Args:
            ids: (B,T,h,w) int64: codes, with special tokens in place of hidden ones.
            keys: key frames between the first and the last frame.
            codes: id of the first special token.
            generator: generator of random masks; ``None`` for torch's global one.
        """

    @abstractmethod
    def fill(self, model: CodePredictor, clip: Tensor, known: list[int], sampler: CodeSampler) -> Tensor:
        """Return clips (B,T,h,w) in which all frames except the ``known`` ones are generated.

        ``known`` are the first and the last frame, and key frames only if the strategy ``supports_keys``.
        """


class PrefixedStrategy(DecodingStrategy):
    """Base of strategies whose sequences begin with the given frames: length, last frame, first frame, key frames.

    The tokens of this prefix attend only to each other, so its keys and values are computed once per clip.
    """

    def prefix(self, ids: Tensor, keys: list[int], codes: int) -> TokenSequence:
        """Return the prefix for clips (B,T,h,w)."""
        batch, frames, height, width = ids.shape
        given = [frames - 1, 0, *keys]
        cells = height * width
        length = ids.new_full((batch, 1), codes + LENGTH)
        positions = torch.cat([ids.new_zeros((1, 3)), frame_positions(given, height, width, ids.device)])
        segments = torch.tensor([LAST, FIRST, *[KEY] * len(keys)], device=ids.device).repeat_interleave(cells)
        return TokenSequence(
            torch.cat([length, ids[:, given].flatten(1)], 1),
            positions,
            torch.cat([ids.new_tensor([BETWEEN]), segments]),
            torch.arange(len(positions), device=ids.device),
            # The length token has the length as `remaining`, a value that no frame of the clip has.
            torch.cat([ids.new_tensor([frames]), frames - 1 - positions[1:, 0]]),
            positions if self.shifted else None,
        )

    def frame_tokens(self, ids: Tensor, frames: list[int], total: int, segment: int, index: int) -> TokenSequence:
        """Return the tokens of whole frames (B,n,h,w) of a clip of ``total`` frames, which start at ``index``."""
        positions = frame_positions(frames, ids.shape[2], ids.shape[3], ids.device)
        count = len(positions)
        return TokenSequence(
            ids.flatten(1),
            positions,
            ids.new_full((count,), segment),
            torch.arange(index, index + count, device=ids.device),
            total - 1 - positions[:, 0],
        )

    def max_length(self, frames: int, cells: int) -> int:
        """Return the length of the sequence: the length token and all codes."""
        return 1 + frames * cells

    @staticmethod
    def missing_frames(frames: int, keys: list[int]) -> list[int]:
        """Return the frames that are not given."""
        return [t for t in range(1, frames - 1) if t not in keys]

    @staticmethod
    def key_frames(known: list[int], frames: int) -> list[int]:
        """Return the known frames between the first and the last one."""
        return [t for t in known if 0 < t < frames - 1]
