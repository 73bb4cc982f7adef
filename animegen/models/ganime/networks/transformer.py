"""The transformer that draws the codes of the frames between a first and a last one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.ganime.networks.cache import Cache
from animegen.models.ganime.networks.gpt import Body, Turn
from animegen.models.ganime.networks.gpt2 import load_gpt2_body
from animegen.models.ganime.networks.layouts import LAYOUTS
from animegen.models.ganime.networks.products import packed
from animegen.models.ganime.networks.rows import NOTHING, SEGMENTS, SPECIALS, Layout, Lesson, Tokens
from animegen.models.ganime.networks.sampling import Draw, Sampling, pick

#: Base of the angles of rotary positions: RoPE has 10000 for thousands of positions, and here there are dozens.
ROTARY_BASE = 100.0


class CodeTransformer(nn.Module):
    """A GPT-2 over the codes of clips, with the first and the last frame given.

    A token is the sum of what it holds (a code, or one of a few special tokens from a table of their own), where it
    lies (frame, row, column), how many frames remain after it, and what it belongs to (first, last, key, between).

    Args:
        codes: size K of the codebook.
        grid: largest grid (h, w) of codes; smaller ones are fine.
        max_frames: longest clip, both given frames included.
        layers: blocks.
        heads: of attention.
        dim: width.
        layout: one of `LAYOUTS`; see there.
        position: ``learned`` (a table each for frames, rows and columns), ``learned1d`` (a table for places in the row,
            as in GPT-2), or ``rope3d`` (queries and keys are turned by frame, row and column).
        dropout: in blocks and of embeddings.
        tied: the table of codes is also the output matrix.
        p_keep: share of the generated tokens that are read as they are in training; the others are random codes.
        frame_dropout: share of the generated frames that are not to be seen at all in training.
        end_dropout: share of the clips whose last frame is not to be seen in training; necessary for guidance.
        key_frames: share of the batches in which a random frame in the middle is given, too.
        scheduled: share of the generated tokens that are the transformer's own choice, at the end of the ramp.
        scheduled_steps: length of the ramp, in training steps.
        body_weights: file of a GPT-2 whose blocks `load_body` takes over, see `load_gpt2_body`; `Ganime` does so before
            it trains.
        layout_options: arguments of the layout, such as ``n_frames_before`` or ``steps``; ``None`` keeps its own.

    Raises:
        AnimegenError: for settings that do not fit together.
    """

    def __init__(
        self,
        codes: int,
        grid: tuple[int, int],
        max_frames: int = 16,
        layers: int = 4,
        heads: int = 4,
        dim: int = 128,
        layout: str = "prefix_ar",
        position: Literal["learned", "learned1d", "rope3d"] = "learned",
        dropout: float = 0.0,
        tied: bool = False,
        p_keep: float = 1.0,
        frame_dropout: float = 0.0,
        end_dropout: float = 0.0,
        key_frames: float = 0.0,
        scheduled: float = 0.0,
        scheduled_steps: int = 1,
        body_weights: str | None = None,
        **layout_options: Any,
    ) -> None:
        super().__init__()
        self.codes, self.grid, self.max_frames = codes, (int(grid[0]), int(grid[1])), max_frames
        self.layout = make_layout(layout, layout_options)
        self.layout_name, self.position = layout, position
        if scheduled and not self.layout.feeds_back:
            raise AnimegenError(f"layout={layout} never reads what it generated before: leave scheduled= at 0.")
        if key_frames and not self.layout.takes_keys:
            raise AnimegenError(f"layout={layout} looks at no key frames ahead of it: leave key_frames= at 0.")
        self.p_keep, self.frame_dropout, self.end_dropout = p_keep, frame_dropout, end_dropout
        self.key_frames, self.scheduled, self.scheduled_steps = key_frames, scheduled, scheduled_steps
        self.code = nn.Embedding(codes, dim)
        self.special = nn.Embedding(SPECIALS, dim)
        self.segment = nn.Embedding(SEGMENTS, dim)
        self.remaining = nn.Embedding(max_frames + 1, dim)
        sizes: dict[str, int] = {}
        if position == "learned":
            axes = {"frame": max_frames, "row": self.grid[0], "column": self.grid[1]}
            sizes = axes | ({f"aim_{axis}": size for axis, size in axes.items()} if self.layout.aims else {})
        elif position == "learned1d":
            sizes = {"slot": self.layout.slots(max_frames, self.grid[0] * self.grid[1])}
        elif position != "rope3d":
            raise AnimegenError(f"position={position} is unknown: use learned, learned1d or rope3d.")
        self.tables = nn.ModuleDict({name: nn.Embedding(size, dim) for name, size in sizes.items()})
        for table in self.modules():
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.body = Body(layers, heads, dim, dropout)
        self.head = nn.Linear(dim, codes, bias=False)
        nn.init.normal_(self.head.weight, std=0.02)
        if tied:
            self.head.weight = self.code.weight
        self.body_weights = body_weights
        #: Whether the blocks of `body_weights` were taken over already; in checkpoints, which need no file.
        self.body_loaded: Tensor
        self.register_buffer("body_loaded", torch.tensor(False))

    # --- training -------------------------------------------------------------------------------

    def forward(self, clips: Tensor, step: int = 0) -> dict[str, Tensor]:
        """Predict the codes between the given frames.

        In training mode what the transformer reads is spoilt as the settings say, with torch's global generator.
        In eval mode nothing is by chance: masks are always the same.

        Args:
            clips: (B,T,h,w) int64 codes, T from 3 to ``max_frames``.
            step: number of the training step, for scheduled sampling.

        Returns:
            ``logits`` (M,K), and for each of the M predictions ``targets`` (M,) the true code, ``copies`` (M,) bool
            whether the frame before has the same code there, ``clip``, ``frame`` and ``place`` (M,) where it is:
            number in the batch, frame, and place in raster order.
        """
        self.check(clips)
        if clips.shape[1] < 3:
            raise AnimegenError("A clip of 2 frames has nothing between: train on clips of 3 frames or more.")
        keys = self._random_keys(clips.shape[1]) if self.training else []
        lesson = self.lesson(self._spoilt(clips, step, keys) if self.training else clips, keys)
        hidden = self.read(lesson.tokens, lesson.mask)[:, -len(lesson.place) :]
        shape = hidden.shape[:2]
        where = [lesson.clip.unsqueeze(1).expand(shape), lesson.frame.expand(shape), lesson.place.expand(shape)]
        if lesson.chosen is None:
            hidden, (clip, frame, place) = hidden.flatten(0, 1), [part.flatten() for part in where]
        else:
            hidden, (clip, frame, place) = hidden[lesson.chosen], [part[lesson.chosen] for part in where]
        flat = clips.flatten(2)
        targets = flat[clip, frame, place]
        return {
            "logits": self.head(hidden),
            "targets": targets,
            "copies": targets == flat[clip, frame - 1, place],
            "clip": clip,
            "frame": frame,
            "place": place,
        }

    def lesson(self, ids: Tensor, keys: list[int] | None = None) -> Lesson:
        """Return the rows for clips (B,T,h,w), in which special tokens stand for codes that are not to be seen."""
        generator = None if self.training else torch.Generator().manual_seed(0)
        return self.layout.lesson(ids, keys or [], self.codes, generator)

    def load_body(self) -> str:
        """Take over the blocks of ``body_weights``; return a sentence about it."""
        assert self.body_weights is not None
        report = load_gpt2_body(self.body, self.body_weights, dict(self.tables.items()).get("slot"))
        self.body_loaded.fill_(True)
        return report

    def scheduled_share(self, step: int) -> float:
        """Return the share of the tokens that are the transformer's own choice at a training step."""
        return self.scheduled * min(1.0, step / max(1, self.scheduled_steps))

    def _random_keys(self, frames: int) -> list[int]:
        if not self.key_frames or frames < 4 or float(torch.rand(())) >= self.key_frames:
            return []
        return [int(torch.randint(1, frames - 1, ()))]

    def _spoilt(self, clips: Tensor, step: int, keys: list[int]) -> Tensor:
        """Return what is read instead of the clips in training; given frames stay, but for the last one's dropout."""
        ids = clips.clone()
        middle = [t for t in range(1, clips.shape[1] - 1) if t not in keys]
        inner, chance = ids[:, middle], lambda *shape: torch.rand(shape, device=clips.device)
        share = self.scheduled_share(step)
        if share > 0:
            inner = torch.where(chance(*inner.shape) < share, self._guessed(clips, keys)[:, middle], inner)
        if self.p_keep < 1:
            inner = torch.where(chance(*inner.shape) < self.p_keep, inner, torch.randint_like(inner, self.codes))
        nothing = self.codes + NOTHING
        if self.frame_dropout:
            inner = inner.masked_fill(chance(*inner.shape[:2], 1, 1) < self.frame_dropout, nothing)
        ids[:, middle] = inner
        if self.end_dropout:
            ids[:, -1] = ids[:, -1].masked_fill(chance(len(ids), 1, 1) < self.end_dropout, nothing)
        return ids

    @torch.no_grad()
    def _guessed(self, clips: Tensor, keys: list[int]) -> Tensor:
        """Return clips in which every predicted code is drawn from what the transformer predicts from the truth."""
        lesson = self.lesson(clips, keys)
        hidden = self.read(lesson.tokens, lesson.mask)[:, -len(lesson.place) :]
        codes = pick(self.head(hidden), torch.rand(hidden.shape[:2], device=clips.device), Sampling())
        chosen = torch.ones_like(codes, dtype=torch.bool) if lesson.chosen is None else lesson.chosen
        clip, frame, place = (
            part.expand_as(codes)[chosen] for part in (lesson.clip.unsqueeze(1), lesson.frame, lesson.place)
        )
        guessed = clips.flatten(2).clone()
        guessed[clip, frame, place] = codes[chosen]
        return guessed.view_as(clips)

    # --- reading rows of tokens -------------------------------------------------------------------

    def read(self, tokens: Tokens, mask: Tensor | None = None, cache: Cache | None = None, keep: bool = True) -> Tensor:
        """Return the body's vectors (R,S,dim) for rows of tokens; see `Body.forward`."""
        where, turns = self.positions(tokens)
        vectors = F.embedding(tokens.ids, self.table()) + where
        return self.body(self.dropout(vectors), mask, turns, cache, keep)

    def table(self) -> Tensor:
        """Return the vectors of all codes, and behind them those of the special tokens, (K + specials,dim)."""
        return torch.cat([self.code.weight, self.special.weight])

    def positions(self, tokens: Tokens) -> tuple[Tensor, tuple[Turn, Turn] | None]:
        """Return all of the tokens' vectors but what they hold, (S,dim) or (R,S,dim), and rotary angles if any."""
        told = (tokens.remaining >= 0).unsqueeze(-1)
        where = self.segment(tokens.segments) + self.remaining(tokens.remaining.clamp_min(0)) * told
        if self.position == "learned1d":
            return where + self.tables["slot"](tokens.slots), None
        aims = tokens.places if tokens.aims is None else tokens.aims
        if self.position == "rope3d":
            return where, (self._angles(aims), self._angles(tokens.places))
        for number, axis in enumerate(("frame", "row", "column")):
            where = where + self.tables[axis](tokens.places[..., number])
            if self.layout.aims:
                where = where + self.tables[f"aim_{axis}"](aims[..., number])
        return where, None

    def _angles(self, places: Tensor) -> Turn:
        """Return the cosines and sines for places ([R,]S,3): a third of a head's pairs for each of the three axes."""
        pairs = self.body.size // 2
        counts = [pairs // 3, pairs // 3, pairs - 2 * (pairs // 3)]  # of pairs for frame, row, column
        parts = [
            places[..., axis : axis + 1] * ROTARY_BASE ** (-torch.arange(count, device=places.device) / count)
            for axis, count in enumerate(counts)
        ]
        angles = torch.cat(parts, -1)
        angles = angles.unsqueeze(1) if angles.ndim == 3 else angles  # all heads alike
        return angles.cos(), angles.sin()

    def new_cache(self, rows: int, length: int, single: bool = False) -> Cache:
        """Return an empty cache for so many tokens per row; ``single``: they will be read one at a time."""
        like = self.head.weight
        # On a CPU, attention of a single query takes a fifth of the time in float32: its kernels for bfloat16 are made
        # for many queries.
        return self.body.new_cache(rows, length, like.float() if single and like.device.type == "cpu" else like)

    # --- generating -------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return clips (B,frames,h,w) of codes; the given frames are copied, never generated.

        Args:
            first: (B,h,w) int64, the codes of frame 0.
            last: (B,h,w) int64, the codes of frame ``frames - 1``.
            frames: length, from 2 to ``max_frames``.
            sampling: how to choose; the likelihood's own by default.
            keys: codes of further given frames by their number, (B,h,w) each.

        Raises:
            AnimegenError: for a length or a grid that the transformer does not know, and for guidance if it was
                trained without ``end_dropout``.
        """
        sampling = sampling or Sampling()
        if sampling.guidance != 1 and not self.end_dropout:
            raise AnimegenError(
                "guidance= needs a transformer that has also learned without the last frame (end_dropout above 0):"
                " leave guidance= at 1, or use another checkpoint."
            )
        if frames < 2:
            raise AnimegenError(f"A clip with a first and a last frame has 2 frames or more, not {frames}.")
        given = {0: first, frames - 1: last, **(keys or {})}
        if not all(0 <= t < frames for t in given):
            wrong = next(t for t in given if not 0 <= t < frames)
            raise AnimegenError(f"keys= names frame {wrong} of a clip of {frames}: they are counted from 0.")
        clip = first.new_zeros((len(first), frames, *first.shape[1:]))
        for t, codes in given.items():
            clip[:, t] = codes
        self.check(clip)
        if len(given) == frames:
            return clip
        draw = Draw(sampling, len(clip), self.codes + NOTHING, clip.device)
        device = clip.device.type
        was_training = self.training
        self.eval()
        rows = len(clip) * (2 if draw.guided else 1) * (1 if self.layout.aims else frames * clip[0, 0].numel())
        try:
            if not torch.is_autocast_enabled(device):
                with packed(self, rows):
                    return self._filled(clip, sorted(given), draw)
            # Autocast would convert all weights again for every token.
            converted = copy.deepcopy(self).to(torch.get_autocast_dtype(device))
            with torch.autocast(device, enabled=False), packed(converted, rows):
                return converted._filled(clip, sorted(given), draw)
        finally:
            self.train(was_training)

    def _filled(self, clip: Tensor, known: list[int], draw: Draw) -> Tensor:
        """Return clips (B,T,h,w) with all frames but the ``known`` ones generated."""
        if self.layout.takes_keys and self.key_frames:
            return self.layout.fill(self, clip, known, draw)
        # Whoever never saw key frames draws each stretch between two of them as a clip of its own.
        for begin, end in pairwise(known):
            if end - begin > 1:
                stretch = clip[:, begin : end + 1]
                clip[:, begin : end + 1] = self.layout.fill(self, stretch, [0, end - begin], draw)
        return clip

    def check(self, clips: Tensor) -> None:
        """Check the size of clips (B,T,h,w).

        Raises:
            AnimegenError: if they are longer or larger than the tables are.
        """
        frames, height, width = clips.shape[1:]
        if frames > self.max_frames:
            raise AnimegenError(
                f"A clip of {frames} frames is longer than this transformer knows: {self.max_frames} at most"
                " (max_frames)."
            )
        if height > self.grid[0] or width > self.grid[1]:
            raise AnimegenError(
                f"A grid of {height}x{width} codes is larger than this transformer knows:"
                f" {self.grid[0]}x{self.grid[1]} at most (grid)."
            )


def make_layout(name: str, options: Mapping[str, Any]) -> Layout:
    """Build a layout from its name and those of the options that are not ``None``.

    Raises:
        AnimegenError: for a name that does not exist, and for an option that the layout does not have.
    """
    if name not in LAYOUTS:
        raise AnimegenError(f"layout={name} is unknown: use {', '.join(LAYOUTS)}.{did_you_mean(name, LAYOUTS)}")
    given = {key: value for key, value in options.items() if value is not None}
    known = [key for key in inspect.signature(LAYOUTS[name]).parameters if key not in ("args", "kwargs")]
    for key, value in given.items():
        if key not in known:
            raise AnimegenError(
                f"layout={name} has no option {key}={value}; it has: {', '.join(known) or 'none'}."
                + did_you_mean(key, known)
            )
    return LAYOUTS[name](**given)
