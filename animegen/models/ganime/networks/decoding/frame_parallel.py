"""Decoding of one frame per pass, as in GANime."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from animegen.models.ganime.networks.decoding.base import CodePredictor, DecodingStrategy
from animegen.models.ganime.networks.sampling import CodeSampler
from animegen.models.ganime.networks.tokens import (
    BETWEEN,
    LAST,
    LENGTH,
    TokenSequence,
    TrainingBatch,
    frame_positions,
    level_mask,
)


class FrameParallel(DecodingStrategy):
    """GANime: all codes of a frame in one pass, from the last frame and the ``n_frames_before`` previous ones.

    The last tokens of the sequence hold the previous frame and predict the codes of the next one, independently of
    each other. Previous frames before the start of the clip are replaced by the first frame.

    Args:
        n_frames_before: number of previous frames in the sequence.
        remaining: where the number of frames up to the last one is encoded: ``none``, ``added_all`` (added to all
            tokens, GANime), ``added_current`` (added to the last tokens), or ``token`` (a separate token,
            TorchGANime).
        order: ``last_first`` (GANime) or ``first_last``: position of the last frame in the sequence.
        mask: ``block``: a frame attends to itself and to the frames before it in the sequence; ``causal`` (GANime): a
            token attends to itself and to the tokens before it.
        targets: ``all`` frames of a clip in each training step, or ``one`` random frame (TorchGANime).
    """

    supports_keys = False

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

    def max_length(self, frames: int, cells: int) -> int:
        """Return the length of the sequence: the last frame, the previous ones, and the token of ``remaining``."""
        return (self.before + 1) * cells + (self.remaining == "token")

    def passes(self, frames: int, cells: int, steps: int | None = None) -> int:
        """Return the number of frames."""
        return frames - 2

    def training_batch(
        self, ids: Tensor, keys: list[int], codes: int, generator: torch.Generator | None
    ) -> TrainingBatch:
        """Return one sequence per clip and predicted frame."""
        batch, frames = ids.shape[:2]
        if self.targets == "one" and generator is None:
            times = torch.randint(1, frames - 1, (batch, 1), device=ids.device)
        else:
            times = torch.arange(1, frames - 1, device=ids.device).expand(batch, -1)
        clip = torch.arange(batch, device=ids.device).repeat_interleave(times.shape[1])
        tokens = self._sequences(ids, clip, times.flatten(), codes)
        cells = ids.shape[2] * ids.shape[3]
        frame = times.flatten().unsqueeze(1).expand(-1, cells)
        return TrainingBatch(tokens, self._mask(tokens, cells), clip, frame, torch.arange(cells, device=ids.device))

    def _sequences(self, ids: Tensor, clip: Tensor, times: Tensor, codes: int) -> TokenSequence:
        """Return the sequences that predict frame ``times[r]`` of clip ``clip[r]``, both (R,)."""
        frames, height, width = ids.shape[1:]
        cells, rows = height * width, len(times)
        # (R,k+1) the frames in each sequence.
        context = (times.unsqueeze(1) - torch.arange(self.before, 0, -1, device=ids.device)).clamp_min(0)
        last = torch.full_like(context[:, :1], frames - 1)
        context = torch.cat([last, context] if self.order == "last_first" else [context, last], 1)
        tokens = ids.flatten(2)[clip.unsqueeze(1), context].flatten(1)
        within = frame_positions([0], height, width, ids.device)[:, 1:].repeat(self.before + 1, 1).expand(rows, -1, -1)
        positions = torch.cat([context.repeat_interleave(cells, 1).unsqueeze(-1), within], -1)
        segments = torch.where(context[0] == frames - 1, LAST, BETWEEN).repeat_interleave(cells)
        left = (frames - 1 - times).unsqueeze(1)
        remaining = torch.full_like(tokens, -1)
        if self.remaining == "added_all":
            remaining = left.expand_as(tokens)
        elif self.remaining == "added_current":
            remaining[:, -cells:] = left
        elif self.remaining == "token":
            tokens = torch.cat([torch.full_like(left, codes + LENGTH), tokens], 1)
            positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], 1)
            segments = torch.cat([segments.new_tensor([BETWEEN]), segments])
            remaining = torch.cat([left, remaining], 1)
        index = torch.arange(tokens.shape[1], device=ids.device)
        return TokenSequence(tokens, positions, segments, index, remaining)

    def _mask(self, tokens: TokenSequence, cells: int) -> Tensor:
        if self.mask == "causal":
            return level_mask(tokens.index)
        # Counted from the end, since the token of `remaining` precedes all frames.
        return level_mask((tokens.index - len(tokens.index)) // cells)

    def fill(self, model: CodePredictor, clip: Tensor, known: list[int], sampler: CodeSampler) -> Tensor:
        """Generate frame after frame, all codes of a frame in one pass."""
        filled = clip.clone()
        cells = clip.shape[2] * clip.shape[3]
        for t in range(1, clip.shape[1] - 1):
            rows = sampler.with_unconditional(filled)
            times = torch.full((len(rows),), t, device=rows.device)
            tokens = self._sequences(rows, torch.arange(len(rows), device=rows.device), times, model.codes)
            hidden = model.read(tokens, self._mask(tokens, cells))[:, -cells:]
            codes = sampler.sample(sampler.guided_logits(model.predict(hidden)), sampler.uniform(cells))
            filled[:, t] = codes.view_as(filled[:, t])
        return filled


class TorchGANime(FrameParallel):
    """TorchGANime: remaining frames, last frame, previous frame; causal, one random target frame per clip."""

    def __init__(self) -> None:
        super().__init__(1, "token", "last_first", "causal", "one")
