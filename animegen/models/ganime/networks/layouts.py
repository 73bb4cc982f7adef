"""How a clip of codes becomes a row of tokens, and which of them are predicted from which.

A layout is a strategy of `CodeTransformer`. It has no weights: it says in which order tokens stand, what may look at
what, and how a clip is filled. All layouts predict at the last tokens of the row.

- `PrefixAR`: the given frames first, seen by all; then the others, code after code.
- `FrameParallel` (GANime): a whole frame in one pass, from the last frame and the frames before.
- `ClipMask` (in `masked`): all other codes are guessed at once, again and again, the surest kept.
- `FrameBlockMask` (in `masked`): the same frame by frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.models.ganime.networks.masked import ClipMask, FrameBlockMask
from animegen.models.ganime.networks.rows import (
    BETWEEN,
    LAST,
    LENGTH,
    START,
    Layout,
    Lesson,
    Prefixed,
    Tokens,
    cells_of,
    joined,
    level_mask,
)
from animegen.models.ganime.networks.sampling import Draw

if TYPE_CHECKING:
    from animegen.models.ganime.networks.transformer import CodeTransformer


class PrefixAR(Prefixed):
    """Code after code in raster order, frame after frame: each sees what is given and all codes before it.

    A token of the generated part holds the code *before* the one that is predicted there, and is told whose place it
    predicts. The whole clip is one row in training.
    """

    aims = True

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of codes."""
        return (frames - 2) * cells

    def lesson(self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None) -> Lesson:
        """Return one row per clip; the last tokens predict all codes of all frames that are not given."""
        prefix = self.prefix(ids, keys, codes)
        frames = self.others(ids.shape[1], keys)
        generated = self._generated(ids, frames, codes, len(prefix.places))
        assert generated.aims is not None
        tokens = joined(prefix, generated)
        cells = ids.shape[2] * ids.shape[3]
        return Lesson(
            tokens,
            level_mask((tokens.slots - len(prefix.places) + 1).clamp_min(0)),
            torch.arange(len(ids), device=ids.device),
            generated.aims[:, 0],
            torch.arange(cells, device=ids.device).repeat(len(frames)),
        )

    def _generated(self, ids: Tensor, frames: list[int], codes: int, slot: int) -> Tokens:
        """Return the start token and the codes of the frames but the last, each with the place after it as aim."""
        own = self.between(ids[:, frames], frames, ids.shape[1], BETWEEN, slot)
        start = ids.new_full((len(ids), 1), codes + START)
        own.ids = torch.cat([start, own.ids[:, :-1]], 1)
        own.aims = own.places
        own.places = torch.cat([own.places.new_zeros((1, 3)), own.places[:-1]])
        own.remaining = torch.cat([own.remaining.new_tensor([ids.shape[1] - 1]), own.remaining[:-1]])
        return own

    def fill(self, model: CodeTransformer, clip: Tensor, known: list[int], draw: Draw) -> Tensor:
        """Generate code after code; every token passes the transformer once."""
        rows = draw.rows(clip)
        keys = [t for t in known if 0 < t < clip.shape[1] - 1]
        frames = self.others(clip.shape[1], keys)
        prefix = self.prefix(rows, keys, model.codes)
        rest = self._generated(rows, frames, model.codes, len(prefix.places))
        count = rest.ids.shape[1]
        cache = model.new_cache(len(rows), len(prefix.places) + count, single=True)
        model.read(prefix, cache=cache)
        uniform = draw.uniform(count)
        where, turns = model.positions(rest)  # of all tokens at once, since only the codes are not yet known
        table = model.table()
        vectors = F.embedding(rest.ids[:, :1], table)
        chosen = []
        for number in range(count):
            turn = None if turns is None else tuple(tuple(part[number : number + 1] for part in t) for t in turns)
            hidden = model.body(vectors + where[number : number + 1], turns=turn, cache=cache)
            codes = draw.codes(draw.merged(model.head(hidden[:, 0])), uniform[:, number])
            chosen.append(codes)
            vectors = F.embedding(draw.both(codes).unsqueeze(1), table)
        filled = clip.clone()
        filled[:, frames] = torch.stack(chosen, 1).view(len(clip), len(frames), *clip.shape[2:])
        return filled


class FrameParallel(Layout):
    """GANime: from the last frame and the ``n_frames_before`` frames before, a whole frame in one pass.

    The last tokens of the row are read as the codes of the next frame, which are chosen independently of each other.
    Before the first frame there is only the first frame: it fills the slots of frames that do not exist.

    Args:
        n_frames_before: frames before that are seen.
        remaining: how the number of frames up to the last one is told: ``none``, ``added_all`` (to every token, as in
            GANime), ``added_current`` (to the last tokens), ``token`` (a token of its own, as in TorchGANime).
        order: ``last_first`` as GANime, or ``first_last``: the last frame at the end.
        mask: ``block``: every frame sees itself and the frames before it in the row; ``causal``: every token sees
            itself and the tokens before it, as in GANime.
        targets: ``all`` frames of a clip in every step, or ``one`` at random, as in TorchGANime.
    """

    takes_keys = False

    def __init__(
        self,
        n_frames_before: int = 1,
        remaining: Literal["none", "added_all", "added_current", "token"] = "added_all",
        order: Literal["last_first", "first_last"] = "last_first",
        mask: Literal["block", "causal"] = "block",
        targets: Literal["all", "one"] = "all",
    ) -> None:
        self.before, self.remaining, self.order = n_frames_before, remaining, order
        self.mask, self.targets = mask, targets

    def slots(self, frames: int, cells: int) -> int:
        """Return the length of a row: the last frame, the frames before, and a token for what remains."""
        return (self.before + 1) * cells + (self.remaining == "token")

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of frames."""
        return frames - 2

    def lesson(self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None) -> Lesson:
        """Return a row per clip and predicted frame."""
        batch, frames = ids.shape[:2]
        if self.targets == "one" and generator is None:
            times = torch.randint(1, frames - 1, (batch, 1), device=ids.device)
        else:
            times = torch.arange(1, frames - 1, device=ids.device).expand(batch, -1)
        clip = torch.arange(batch, device=ids.device).repeat_interleave(times.shape[1])
        tokens = self._rows(ids, clip, times.flatten(), codes)
        cells = ids.shape[2] * ids.shape[3]
        frame = times.flatten().unsqueeze(1).expand(-1, cells)
        return Lesson(tokens, self._mask(tokens, cells), clip, frame, torch.arange(cells, device=ids.device))

    def _rows(self, ids: Tensor, clip: Tensor, times: Tensor, codes: int) -> Tokens:
        """Return the rows that predict the frames ``times`` (R,) of the clips of these numbers (R,)."""
        frames, height, width = ids.shape[1:]
        cells, rows = height * width, len(times)
        # (R,k+1) numbers of the frames that stand in the row.
        seen = (times.unsqueeze(1) - torch.arange(self.before, 0, -1, device=ids.device)).clamp_min(0)
        last = torch.full_like(seen[:, :1], frames - 1)
        seen = torch.cat([last, seen] if self.order == "last_first" else [seen, last], 1)
        found = ids.flatten(2)[clip.unsqueeze(1), seen].flatten(1)
        inside = cells_of([0], height, width, ids.device)[:, 1:].repeat(self.before + 1, 1).expand(rows, -1, -1)
        places = torch.cat([seen.repeat_interleave(cells, 1).unsqueeze(-1), inside], -1)
        segments = torch.where(seen[0] == frames - 1, LAST, BETWEEN).repeat_interleave(cells)
        left = (frames - 1 - times).unsqueeze(1)
        told = torch.full_like(found, -1)
        if self.remaining == "added_all":
            told = told.masked_fill(told < 0, 0) + left
        elif self.remaining == "added_current":
            told[:, -cells:] = left
        elif self.remaining == "token":
            found = torch.cat([torch.full_like(left, codes + LENGTH), found], 1)
            places = torch.cat([torch.zeros_like(places[:, :1]), places], 1)
            segments = torch.cat([segments.new_tensor([BETWEEN]), segments])
            told = torch.cat([left, told], 1)
        return Tokens(found, places, segments, torch.arange(found.shape[1], device=ids.device), told)

    def _mask(self, tokens: Tokens, cells: int) -> Tensor:
        if self.mask == "causal":
            return level_mask(tokens.slots)
        # The token for what remains stands before all frames.
        return level_mask((tokens.slots - len(tokens.slots)) // cells)

    def fill(self, model: CodeTransformer, clip: Tensor, known: list[int], draw: Draw) -> Tensor:
        """Generate frame after frame, all codes of a frame in one pass."""
        filled = clip.clone()
        cells = clip.shape[2] * clip.shape[3]
        for t in range(1, clip.shape[1] - 1):
            rows = draw.rows(filled)
            times = torch.full((len(rows),), t, device=rows.device)
            tokens = self._rows(rows, torch.arange(len(rows), device=rows.device), times, model.codes)
            hidden = model.read(tokens, self._mask(tokens, cells))[:, -cells:]
            codes = draw.codes(draw.merged(model.head(hidden)), draw.uniform(cells))
            filled[:, t] = codes.view_as(filled[:, t])
        return filled


class TorchGANime(FrameParallel):
    """TorchGANime's row: what remains, the last frame, the present one; causal, one random frame per clip."""

    def __init__(self) -> None:
        super().__init__(1, "token", "last_first", "causal", "one")


LAYOUTS: dict[str, type[Layout]] = {
    "prefix_ar": PrefixAR,
    "clip_mask": ClipMask,
    "frame_block_mask": FrameBlockMask,
    "frame_parallel": FrameParallel,
    "torch_ganime": TorchGANime,
}
