"""Token sequences, the input of the transformer, and the sequences of a training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

#: Special tokens; their ids follow those of the codes.
LENGTH, START, MASK, NOTHING = range(4)
SPECIALS = 4
#: Segments: the part of the clip that a token belongs to.
FIRST, LAST, KEY, BETWEEN, MASKED = range(5)
SEGMENTS = 5


@dataclass
class TokenSequence:
    """R sequences of S tokens. Fields without R are shared by all sequences.

    Attributes:
        ids: (R,S) int64: codes; ids from ``codes`` on are special tokens.
        positions: (S,3) or (R,S,3) int64: frame, row and column.
        segments: (S,) int64, see :data:`SEGMENTS`.
        index: (S,) int64: index in the sequence, for ``position=learned1d``.
        remaining: (S,) or (R,S) int64: number of frames from this one to the last; -1 for tokens without it.
        targets: (S,3): the position that is predicted, if it is not the token's own; otherwise ``None``.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    index: Tensor
    remaining: Tensor
    targets: Tensor | None = None


@dataclass
class TrainingBatch:
    """Input and targets of the transformer in a training step.

    Attributes:
        tokens: the R sequences.
        mask: attention mask, bool (S,S), true where a token (first axis) may attend; ``None`` for everywhere.
        clip: (R,) index in the batch of the clip of each sequence.
        frame: (P,) or (R,P), the frame that each of the last P tokens predicts.
        cell: (P,) the index in that frame, in raster order.
        predicted: bool (R,P), true where there is a prediction; ``None`` for everywhere.
    """

    tokens: TokenSequence
    mask: Tensor | None
    clip: Tensor
    frame: Tensor
    cell: Tensor
    predicted: Tensor | None = None


def concatenated(*parts: TokenSequence) -> TokenSequence:
    """Concatenate sequences along the token axis."""
    targets = [part.targets for part in parts]
    return TokenSequence(
        torch.cat([part.ids for part in parts], -1),
        torch.cat([part.positions for part in parts]),
        torch.cat([part.segments for part in parts]),
        torch.cat([part.index for part in parts]),
        torch.cat([part.remaining for part in parts], -1),
        None if targets[0] is None else torch.cat([target for target in targets if target is not None]),
    )


def frame_positions(frames: list[int], height: int, width: int, device: torch.device) -> Tensor:
    """Return (frame, row, column) of all codes of the frames in raster order, (n h w, 3)."""
    axes = [
        torch.tensor(frames, device=device, dtype=torch.long),
        torch.arange(height, device=device),
        torch.arange(width, device=device),
    ]
    return torch.cartesian_prod(*axes).view(-1, 3)


def level_mask(levels: Tensor) -> Tensor:
    """Return the attention mask, bool (S,S), by which tokens attend to all tokens of the same and of lower levels."""
    return levels.unsqueeze(1) >= levels.unsqueeze(0)


def random_subset(rows: int, tokens: int, counts: Tensor, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return bool (rows,tokens) with ``counts`` (rows,) random true values in each row, on the device of ``like``."""
    scores = torch.rand((rows, tokens), generator=generator, device=None if generator else like.device)
    ranks = scores.argsort(1).argsort(1).to(like.device)
    return ranks < counts.unsqueeze(1)


def cosine_counts(rows: int, tokens: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return the number of tokens to mask in each row: a fraction cos(pi u / 2), u uniform in [0, 1), at least 1."""
    u = torch.rand((rows,), generator=generator, device=None if generator else like.device).to(like.device)
    return (tokens * torch.cos(math.pi / 2 * u)).ceil().long().clamp(1, tokens)
