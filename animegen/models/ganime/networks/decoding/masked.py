"""Iterative decoding of masked codes (MaskGIT, Chang et al. 2022; MAGVIT, Yu et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.models.ganime.networks.cache import KeyValueCache
from animegen.models.ganime.networks.decoding.base import CodePredictor, PrefixedStrategy
from animegen.models.ganime.networks.sampling import CodeSampler, masked_after
from animegen.models.ganime.networks.tokens import (
    BETWEEN,
    MASK,
    MASKED,
    TokenSequence,
    TrainingBatch,
    concatenated,
    cosine_counts,
    level_mask,
    random_subset,
)


class ClipMask(PrefixedStrategy):
    """All masked codes of a clip in parallel, repeatedly; each pass keeps the most confident predictions.

    Args:
        steps: number of passes. MaskGIT uses 8 to 12; with two given frames 4 to 6 were as good as 12.
        choice_temperature: randomness of the choice of predictions in the first pass; it decreases to 0 (MaskGIT:
            4.5).
        full: fraction of the training clips of which all codes between are masked, as in the first pass.
        train_frames: predict so many random frames of a training clip, and leave the others out; ``None`` for all.
            Then a training step takes the same time for clips of all lengths.
    """

    reads_generated = False
    reads_pixels = True

    def __init__(
        self, steps: int = 6, choice_temperature: float = 4.5, full: float = 0.0, train_frames: int | None = None
    ) -> None:
        if not 0 <= full <= 1 or (train_frames is not None and train_frames < 1):
            raise AnimegenError(f"full={full} must be from 0 to 1, and train_frames={train_frames} at least 1.")
        self.steps, self.choice_temperature = steps, choice_temperature
        self.full, self.train_frames = full, train_frames

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of steps, or fewer if there are fewer codes."""
        return passes_needed((frames - 2) * cells, steps or self.steps)

    def training_batch(
        self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None
    ) -> TrainingBatch:
        """Return one sequence per clip, in which a random subset of the codes is masked and predicted."""
        prefix = self.prefix(ids, keys, codes)
        frames = self.missing_frames(ids.shape[1], keys)
        if generator is None and self.train_frames is not None:
            chosen = torch.randperm(len(frames))[: self.train_frames].sort().values
            frames = [frames[n] for n in chosen.tolist()]
        own = self.frame_tokens(ids[:, frames], frames, ids.shape[1], MASKED, len(prefix.positions))
        batch, count = own.ids.shape
        counts = cosine_counts(batch, count, generator, ids)
        if self.full:
            device = None if generator else ids.device
            whole = (torch.rand((batch,), generator=generator, device=device) < self.full).to(ids.device)
            counts = counts.masked_fill(whole, count)
        predicted = random_subset(batch, count, counts, generator, ids)
        own.ids = own.ids.masked_fill(predicted, codes + MASK)
        tokens = concatenated(prefix, own)
        cells = ids.shape[2] * ids.shape[3]
        return TrainingBatch(
            tokens,
            level_mask((tokens.index >= len(prefix.positions)).long()),
            torch.arange(batch, device=ids.device),
            own.positions[:, 0],
            torch.arange(cells, device=ids.device).repeat(len(frames)),
            predicted,
        )

    def first_pass(self, model: CodePredictor, clip: Tensor) -> Tensor:
        """Return the hidden vectors (B,T-2,h,w,dim) of all codes between the ends of clips (B,T,h,w), in one pass."""
        prefix = self.prefix(clip, [], model.codes)
        frames = self.missing_frames(clip.shape[1], [])
        masked = torch.full_like(clip[:, frames], model.codes + MASK)
        own = self.frame_tokens(masked, frames, clip.shape[1], MASKED, len(prefix.positions))
        tokens = concatenated(prefix, own)
        hidden = model.read(tokens, level_mask((tokens.index >= len(prefix.positions)).long()))
        return hidden[:, len(prefix.positions) :].unflatten(1, masked.shape[1:])

    def fill(self, model: CodePredictor, clip: Tensor, known: list[int], sampler: CodeSampler) -> Tensor:
        """Generate all codes in a few passes; the prefix is read once."""
        rows = sampler.with_unconditional(clip)
        keys = self.key_frames(known, clip.shape[1])
        frames = self.missing_frames(clip.shape[1], keys)
        prefix = self.prefix(rows, keys, model.codes)
        masked = torch.full_like(clip[:, frames], model.codes + MASK)
        own = self.frame_tokens(sampler.duplicated(masked), frames, clip.shape[1], MASKED, len(prefix.positions))
        cache = model.new_cache(len(rows), len(prefix.positions) + own.ids.shape[1])
        model.read(prefix, cache=cache)
        filled = clip.clone()
        steps = sampler.sampling.steps or self.steps
        filled[:, frames] = unmask(model, own, cache, sampler, steps, self.choice_temperature).view_as(masked)
        return filled


class FrameBlockMask(PrefixedStrategy):
    """As :class:`ClipMask`, but frame by frame: a frame attends to the given frames and to finished frames before it.

    In training each missing frame is twice in the sequence: complete, as context of later frames, and masked.

    Args:
        steps: number of passes per frame.
        choice_temperature: see :class:`ClipMask`.
    """

    def __init__(self, steps: int = 8, choice_temperature: float = 4.5) -> None:
        self.steps, self.choice_temperature = steps, choice_temperature

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the total number of steps of all frames."""
        return (frames - 2) * passes_needed(cells, steps or self.steps)

    def training_batch(
        self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None
    ) -> TrainingBatch:
        """Return one sequence per clip: prefix, complete frames, masked frames with a random subset to predict."""
        batch, total, height, width = ids.shape
        cells = height * width
        prefix = self.prefix(ids, keys, codes)
        frames = self.missing_frames(total, keys)
        start = len(prefix.positions)
        complete = self.frame_tokens(ids[:, frames[:-1]], frames[:-1], total, BETWEEN, start)
        own = self.frame_tokens(ids[:, frames], frames, total, MASKED, start)
        rows = batch * len(frames)
        counts = cosine_counts(rows, cells, generator, ids)
        predicted = random_subset(rows, cells, counts, generator, ids).view(batch, -1)
        own.ids = own.ids.masked_fill(predicted, codes + MASK)
        tokens = concatenated(prefix, complete, own)
        # The prefix has level 0, the n-th missing frame level n. Masked frames are context of themselves only.
        level = ((tokens.index - start) // cells + 1).clamp_min(0)
        masked = torch.arange(len(level), device=ids.device) >= start + len(complete.positions)
        same, before = level.unsqueeze(1) == level, level.unsqueeze(1) > level
        mask = torch.where(masked, masked.unsqueeze(1) & same, before | (same & ~masked.unsqueeze(1)))
        return TrainingBatch(
            tokens,
            mask,
            torch.arange(batch, device=ids.device),
            own.positions[:, 0],
            torch.arange(cells, device=ids.device).repeat(len(frames)),
            predicted,
        )

    def fill(self, model: CodePredictor, clip: Tensor, known: list[int], sampler: CodeSampler) -> Tensor:
        """Generate frame after frame in a few passes each; finished frames are read once."""
        rows = sampler.with_unconditional(clip)
        total = clip.shape[1]
        cells = clip.shape[2] * clip.shape[3]
        keys = self.key_frames(known, total)
        frames = self.missing_frames(total, keys)
        prefix = self.prefix(rows, keys, model.codes)
        cache = model.new_cache(len(rows), len(prefix.positions) + len(frames) * cells)
        model.read(prefix, cache=cache)
        filled = clip.clone()
        for t in frames:
            masked = sampler.duplicated(torch.full_like(clip[:, t : t + 1], model.codes + MASK))
            own = self.frame_tokens(masked, [t], total, MASKED, cache.length)
            steps = sampler.sampling.steps or self.steps
            codes = unmask(model, own, cache, sampler, steps, self.choice_temperature).view_as(clip[:, t])
            filled[:, t] = codes
            if t != frames[-1]:
                finished = sampler.duplicated(codes).unsqueeze(1)
                model.read(self.frame_tokens(finished, [t], total, BETWEEN, cache.length), cache=cache)
        return filled


def passes_needed(tokens: int, steps: int) -> int:
    """Return after how many of ``steps`` passes all of ``tokens`` masked tokens are filled."""
    return 1 + next(step for step in range(steps) if masked_after(step, steps, tokens) == 0)


def unmask(
    model: CodePredictor, own: TokenSequence, cache: KeyValueCache, sampler: CodeSampler, steps: int, choice: float
) -> Tensor:
    """Fill masked tokens in a few passes and return their codes (B,n).

    Each pass keeps the predictions with the highest log-probability, perturbed by Gumbel noise.

    Args:
        model: the transformer.
        own: n masked tokens, one sequence per clip, with guidance two.
        cache: the cache with the context.
        sampler: the random choices.
        steps: number of passes.
        choice: scale of the noise in the first pass; it decreases linearly to 0.
    """
    clips = len(own.ids) // (2 if sampler.guided else 1)
    count = own.ids.shape[1]
    ids = own.ids[:clips].clone()
    codes = torch.zeros_like(ids)
    unknown = torch.arange(count, device=ids.device).expand(clips, -1)  # the same number in each clip
    for step in range(steps):
        own.ids = sampler.duplicated(ids)
        hidden = model.read(own, cache=cache, keep=False)
        index = sampler.duplicated(unknown).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        logits = sampler.guided_logits(model.predict(hidden.gather(1, index))).float()
        predictions = sampler.sample(logits, sampler.uniform(unknown.shape[1]))
        codes.scatter_(1, unknown, predictions)
        left = masked_after(step, steps, count)
        if left == 0:
            break
        confidence = logits.log_softmax(-1).gather(-1, predictions.unsqueeze(-1)).squeeze(-1)
        if not sampler.sampling.greedy:
            noise = -(-sampler.uniform(unknown.shape[1]).clamp_min(1e-20).log()).log()
            confidence = confidence + choice * (1 - (step + 1) / steps) * noise
        order = confidence.argsort(dim=1, stable=True)
        kept = unknown.gather(1, order[:, left:])
        ids.scatter_(1, kept, codes.gather(1, kept))
        unknown = unknown.gather(1, order[:, :left])
    return codes
