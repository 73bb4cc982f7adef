"""Layouts that guess masked codes together (MaskGIT, Chang et al. 2022; MAGVIT, Yu et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from animegen.models.ganime.networks.cache import Cache
from animegen.models.ganime.networks.rows import (
    BETWEEN,
    MASK,
    MASKED,
    Lesson,
    Prefixed,
    Tokens,
    cosine_counts,
    joined,
    level_mask,
    random_subset,
)
from animegen.models.ganime.networks.sampling import Draw, masked_after

if TYPE_CHECKING:
    from animegen.models.ganime.networks.transformer import CodeTransformer


class ClipMask(Prefixed):
    """All codes between are guessed together, again and again; each time the surest guesses stay.

    Args:
        steps: passes. MaskGIT has 8 to 12; here, where two given frames say much, 4 to 6 were as good as 12.
        choice_temperature: how much chance there is in what is kept at the beginning; it falls to 0 (MaskGIT: 4.5).
    """

    feeds_back = False

    def __init__(self, steps: int = 6, choice_temperature: float = 4.5) -> None:
        self.steps, self.choice_temperature = steps, choice_temperature

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of steps, or less if there are not so many codes."""
        return steps_for((frames - 2) * cells, steps or self.steps)

    def lesson(self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None) -> Lesson:
        """Return one row per clip, in which a random share of the codes between is masked and predicted."""
        prefix = self.prefix(ids, keys, codes)
        frames = self.others(ids.shape[1], keys)
        own = self.between(ids[:, frames], frames, ids.shape[1], MASKED, len(prefix.places))
        batch, count = own.ids.shape
        chosen = random_subset(batch, count, cosine_counts(batch, count, generator, ids), generator, ids)
        own.ids = own.ids.masked_fill(chosen, codes + MASK)
        tokens = joined(prefix, own)
        cells = ids.shape[2] * ids.shape[3]
        return Lesson(
            tokens,
            level_mask((tokens.slots >= len(prefix.places)).long()),
            torch.arange(batch, device=ids.device),
            own.places[:, 0],
            torch.arange(cells, device=ids.device).repeat(len(frames)),
            chosen,
        )

    def fill(self, model: CodeTransformer, clip: Tensor, known: list[int], draw: Draw) -> Tensor:
        """Guess all codes in a few passes; what is given is read once."""
        rows = draw.rows(clip)
        keys = [t for t in known if 0 < t < clip.shape[1] - 1]
        frames = self.others(clip.shape[1], keys)
        prefix = self.prefix(rows, keys, model.codes)
        masked = torch.full_like(clip[:, frames], model.codes + MASK)
        own = self.between(draw.both(masked), frames, clip.shape[1], MASKED, len(prefix.places))
        cache = model.new_cache(len(rows), len(prefix.places) + own.ids.shape[1])
        model.read(prefix, cache=cache)
        filled = clip.clone()
        steps = draw.sampling.steps or self.steps
        filled[:, frames] = unmask(model, own, cache, draw, steps, self.choice_temperature).view_as(masked)
        return filled


class FrameBlockMask(Prefixed):
    """As `ClipMask`, but frame after frame: each frame sees what is given and the finished frames before it.

    In training every frame between stands twice in the row: as it is, for the frames after it, and masked.

    Args:
        steps: passes per frame.
        choice_temperature: see `ClipMask`.
    """

    def __init__(self, steps: int = 8, choice_temperature: float = 4.5) -> None:
        self.steps, self.choice_temperature = steps, choice_temperature

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of steps for each frame."""
        return (frames - 2) * steps_for(cells, steps or self.steps)

    def lesson(self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None) -> Lesson:
        """Return one row per clip: given, clean and masked frames; of each masked frame a random share is predicted."""
        batch, total, height, width = ids.shape
        cells = height * width
        prefix = self.prefix(ids, keys, codes)
        frames = self.others(total, keys)
        slot = len(prefix.places)
        clean = self.between(ids[:, frames[:-1]], frames[:-1], total, BETWEEN, slot)
        own = self.between(ids[:, frames], frames, total, MASKED, slot)
        rows = batch * len(frames)
        counts = cosine_counts(rows, cells, generator, ids)
        chosen = random_subset(rows, cells, counts, generator, ids).view(batch, -1)
        own.ids = own.ids.masked_fill(chosen, codes + MASK)
        tokens = joined(prefix, clean, own)
        # Level 0 is given; frame n of those between is level n. A masked frame is read by itself alone.
        level = ((tokens.slots - slot) // cells + 1).clamp_min(0)
        masked = torch.arange(len(level), device=ids.device) >= slot + len(clean.places)
        same, before = level.unsqueeze(1) == level, level.unsqueeze(1) > level
        mask = torch.where(masked, masked.unsqueeze(1) & same, before | (same & ~masked.unsqueeze(1)))
        return Lesson(
            tokens,
            mask,
            torch.arange(batch, device=ids.device),
            own.places[:, 0],
            torch.arange(cells, device=ids.device).repeat(len(frames)),
            chosen,
        )

    def fill(self, model: CodeTransformer, clip: Tensor, known: list[int], draw: Draw) -> Tensor:
        """Guess frame after frame in a few passes each; finished frames are read once."""
        rows = draw.rows(clip)
        total = clip.shape[1]
        cells = clip.shape[2] * clip.shape[3]
        keys = [t for t in known if 0 < t < total - 1]
        frames = self.others(total, keys)
        prefix = self.prefix(rows, keys, model.codes)
        cache = model.new_cache(len(rows), len(prefix.places) + len(frames) * cells)
        model.read(prefix, cache=cache)
        filled = clip.clone()
        for t in frames:
            masked = draw.both(torch.full_like(clip[:, t : t + 1], model.codes + MASK))
            own = self.between(masked, [t], total, MASKED, cache.length)
            steps = draw.sampling.steps or self.steps
            done = unmask(model, own, cache, draw, steps, self.choice_temperature).view_as(clip[:, t])
            filled[:, t] = done
            if t != frames[-1]:
                model.read(self.between(draw.both(done).unsqueeze(1), [t], total, BETWEEN, cache.length), cache=cache)
        return filled


def steps_for(tokens: int, steps: int) -> int:
    """Return after how many passes so many masked tokens are all filled."""
    return 1 + next(step for step in range(steps) if masked_after(step, steps, tokens) == 0)


def unmask(model: CodeTransformer, own: Tokens, cache: Cache, draw: Draw, steps: int, choice: float) -> Tensor:
    """Fill masked tokens in a few passes; return codes (B,n).

    Of the guesses those of the highest log-probability stay, which noise of Gumbel's distribution blurs at first.

    Args:
        model: the transformer.
        own: n masked tokens, with a row per clip, or two with guidance.
        cache: of what is given.
        draw: the choices.
        steps: passes.
        choice: scale of the noise in the first pass; it falls linearly to 0.
    """
    clips = len(own.ids) // (2 if draw.guided else 1)
    count = own.ids.shape[1]
    ids = own.ids[:clips].clone()
    codes = torch.zeros_like(ids)
    unknown = torch.arange(count, device=ids.device).expand(clips, -1)  # as many in every clip
    for step in range(steps):
        own.ids = draw.both(ids)
        hidden = model.read(own, cache=cache, keep=False)
        wanted = draw.both(unknown).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        logits = draw.merged(model.head(hidden.gather(1, wanted))).float()
        guesses = draw.codes(logits, draw.uniform(unknown.shape[1]))
        codes.scatter_(1, unknown, guesses)
        left = masked_after(step, steps, count)
        if left == 0:
            break
        sure = logits.log_softmax(-1).gather(-1, guesses.unsqueeze(-1)).squeeze(-1)
        if not draw.sampling.greedy:
            noise = -(-draw.uniform(unknown.shape[1]).clamp_min(1e-20).log()).log()
            sure = sure + choice * (1 - (step + 1) / steps) * noise
        order = sure.argsort(dim=1, stable=True)
        kept = unknown.gather(1, order[:, left:])
        ids.scatter_(1, kept, codes.gather(1, kept))
        unknown = unknown.gather(1, order[:, :left])
    return codes
