"""Rows of tokens: how clips of codes are written down for a transformer, and what a layout has to say about them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from animegen.models.ganime.networks.sampling import Draw

if TYPE_CHECKING:
    from animegen.models.ganime.networks.transformer import CodeTransformer

#: Special tokens, counted from the first number that is no code.
LENGTH, START, MASK, NOTHING = range(4)
SPECIALS = 4
#: What a token belongs to.
FIRST, LAST, KEY, BETWEEN, MASKED = range(5)
SEGMENTS = 5


@dataclass
class Tokens:
    """Rows of S tokens. R is a number of rows; what has no R is the same for all of them.

    Attributes:
        ids: (R,S) int64; from ``codes`` on they are special tokens.
        places: (S,3) or (R,S,3) int64: frame, row and column.
        segments: (S,) int64.
        slots: (S,) int64: place in the row, which `position=learned1d` looks at.
        remaining: (S,) or (R,S) int64: frames after it up to the last; -1 where that is not told.
        aims: (S,3): the place that is predicted there, if it is not the token's own; or ``None``.
    """

    ids: Tensor
    places: Tensor
    segments: Tensor
    slots: Tensor
    remaining: Tensor
    aims: Tensor | None = None


@dataclass
class Lesson:
    """What a transformer reads in a training step, and what it shall say at the last tokens of each row.

    Attributes:
        tokens: the rows.
        mask: bool (S,S), true where a token (first axis) may look; ``None`` for everywhere.
        clip: (R,) the clip that a row is about.
        frame: (tail,) or (R,tail), the frame that each of the last tokens predicts.
        place: (tail,) the place in the frame, row-major.
        chosen: bool (R,tail), where there is something to predict; ``None`` for everywhere.
    """

    tokens: Tokens
    mask: Tensor | None
    clip: Tensor
    frame: Tensor
    place: Tensor
    chosen: Tensor | None = None


class Layout(ABC):
    """A way to write clips as rows of tokens.

    Attributes:
        aims: whether tokens predict another place than their own.
        feeds_back: whether what was generated is read as it is, so that scheduled sampling means something.
        takes_keys: whether given frames in the middle are seen by the frames before them.
    """

    aims = False
    feeds_back = True
    takes_keys = True

    @abstractmethod
    def slots(self, frames: int, cells: int) -> int:
        """Return the longest row for clips of so many frames of so many codes."""

    @abstractmethod
    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return how often the transformer runs, one pass after the other, to draw what is between two frames.

        Reading what is given does not count, nor does reading what was finished.

        Args:
            frames: of the clip, both given ones included.
            cells: codes per frame.
            steps: of the layouts that guess again and again; ``None`` is their own number.
        """

    @abstractmethod
    def lesson(self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None) -> Lesson:
        """Return the rows of a training step.

        Args:
            ids: (B,T,h,w) int64: codes, and special tokens in place of those that are not to be seen.
            keys: frames in the middle that are given.
            codes: the number of the first special token.
            generator: of random masks; ``None`` takes torch's global one.
        """

    @abstractmethod
    def fill(self, model: CodeTransformer, clip: Tensor, known: list[int], draw: Draw) -> Tensor:
        """Return clips (B,T,h,w) with all frames but the ``known`` ones generated.

        ``known`` are the first and the last frame, and others between only if the layout ``takes_keys``.
        """


def cells_of(frames: list[int], height: int, width: int, device: torch.device) -> Tensor:
    """Return (frame, row, column) of all codes of the frames in raster order, (n h w, 3)."""
    axes = [
        torch.tensor(frames, device=device, dtype=torch.long),
        torch.arange(height, device=device),
        torch.arange(width, device=device),
    ]
    return torch.cartesian_prod(*axes).view(-1, 3)


def level_mask(levels: Tensor, keys: Tensor | None = None) -> Tensor:
    """Return who may look at whom if everybody sees all of the same and of lower levels, bool (S,S) or (S,keys)."""
    return levels.unsqueeze(1) >= (levels if keys is None else keys).unsqueeze(0)


def random_subset(rows: int, tokens: int, counts: Tensor, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return bool (rows,tokens) in which each row has as many random trues as ``counts`` (rows,) says."""
    scores = torch.rand((rows, tokens), generator=generator, device=None if generator else like.device)
    ranks = scores.argsort(1).argsort(1).to(like.device)
    return ranks < counts.unsqueeze(1)


def cosine_counts(rows: int, tokens: int, generator: torch.Generator | None, like: Tensor) -> Tensor:
    """Return how many tokens to mask in each row: the share cos(pi u / 2) with u in [0, 1), at least one."""
    u = torch.rand((rows,), generator=generator, device=None if generator else like.device).to(like.device)
    return (tokens * torch.cos(math.pi / 2 * u)).ceil().long().clamp(1, tokens)


class Prefixed(Layout):
    """Layouts whose rows begin with what is given: the length, the last frame, the first one, further key frames.

    The given tokens see each other and nothing else, so that their keys and values are computed once per clip.
    """

    def prefix(self, ids: Tensor, keys: list[int], codes: int) -> Tokens:
        """Return the given part of the rows of clips (B,T,h,w)."""
        batch, frames, height, width = ids.shape
        given = [frames - 1, 0, *keys]
        cells = height * width
        length = ids.new_full((batch, 1), codes + LENGTH)
        places = torch.cat([ids.new_zeros((1, 3)), cells_of(given, height, width, ids.device)])
        segments = torch.tensor([LAST, FIRST, *[KEY] * len(keys)], device=ids.device).repeat_interleave(cells)
        return Tokens(
            torch.cat([length, ids[:, given].flatten(1)], 1),
            places,
            torch.cat([ids.new_tensor([BETWEEN]), segments]),
            torch.arange(len(places), device=ids.device),
            # The length token has the length itself, which no frame of the clip has.
            torch.cat([ids.new_tensor([frames]), frames - 1 - places[1:, 0]]),
            places if self.aims else None,
        )

    def between(self, ids: Tensor, frames: list[int], total: int, segment: int, slot: int) -> Tokens:
        """Return tokens of whole frames (B,n,h,w) of a clip of ``total`` frames, from a slot on."""
        places = cells_of(frames, ids.shape[2], ids.shape[3], ids.device)
        count = len(places)
        return Tokens(
            ids.flatten(1),
            places,
            ids.new_full((count,), segment),
            torch.arange(slot, slot + count, device=ids.device),
            total - 1 - places[:, 0],
        )

    def slots(self, frames: int, cells: int) -> int:
        """Return the longest row: the length, and all codes."""
        return 1 + frames * cells

    @staticmethod
    def others(frames: int, keys: list[int]) -> list[int]:
        """Return the frames that are not given."""
        return [t for t in range(1, frames - 1) if t not in keys]


def joined(*parts: Tokens) -> Tokens:
    """Return tokens one behind the other."""
    aims = [part.aims for part in parts]
    return Tokens(
        torch.cat([part.ids for part in parts], -1),
        torch.cat([part.places for part in parts]),
        torch.cat([part.segments for part in parts]),
        torch.cat([part.slots for part in parts]),
        torch.cat([part.remaining for part in parts], -1),
        None if aims[0] is None else torch.cat([aim for aim in aims if aim is not None]),
    )
