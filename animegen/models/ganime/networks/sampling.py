"""Sampling of codes, with one random generator per clip and guidance by the last frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from animegen.tasks.protocols import Sampling


class CodeSampler:
    """Random choices of one call of ``generate``.

    Each clip has its own generator, seeded with ``seed + b``, so a clip does not depend on the rest of the batch.
    With guidance each clip has two sequences in the transformer: one with its last frame, and B rows later one
    without.

    Args:
        sampling: temperature, truncation, guidance and seed.
        clips: batch size B.
        nothing: id of the token that replaces the last frame in sequences without it.
        device: device of the codes.
    """

    def __init__(self, sampling: Sampling, clips: int, nothing: int, device: torch.device) -> None:
        self.sampling, self.nothing, self.device = sampling, nothing, device
        self.guided = sampling.guidance != 1
        # On the CPU, so that a seed gives the same clip on every device.
        self._generators = [torch.Generator().manual_seed(sampling.seed + number) for number in range(clips)]

    def uniform(self, *shape: int) -> Tensor:
        """Return random numbers in [0, 1), (B,*shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(self.device)

    def with_unconditional(self, clip: Tensor) -> Tensor:
        """Return clips (B,T,h,w) as read by the transformer: (B,T,h,w), with guidance (2B,T,h,w)."""
        if not self.guided:
            return clip
        unconditional = clip.clone()
        unconditional[:, -1] = self.nothing
        return torch.cat([clip, unconditional])

    def duplicated(self, values: Tensor) -> Tensor:
        """Repeat values of clips (B,...) for each of their sequences: (B,...), with guidance (2B,...)."""
        return torch.cat([values, values]) if self.guided else values

    def guided_logits(self, logits: Tensor) -> Tensor:
        """Combine the logits of the sequences (B or 2B,...,K) to those of the clips (B,...,K)."""
        if not self.guided:
            return logits
        conditional, unconditional = logits.chunk(2)
        return torch.lerp(unconditional, conditional, self.sampling.guidance)

    def sample(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Sample a code for each of the logits (B,...,K), given random numbers (B,...) in [0, 1)."""
        return sample_codes(logits, uniform, self.sampling)


def sample_codes(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Sample from a categorical distribution by inverting its cumulative distribution function.

    Args:
        logits: ``(...,K)``.
        uniform: ``(...)`` in [0, 1), one random number per sample.
        sampling: ``greedy``, or ``temperature``, ``top_k`` and ``top_p``, applied in this order.

    Returns:
        int64 ``(...)``.
    """
    if sampling.greedy:
        return logits.argmax(-1)
    logits = logits.float() / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        least = logits.topk(sampling.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = logits.masked_fill(_outside_nucleus(logits, sampling.top_p), -torch.inf)
    # In double precision a uniform number times the sum stays below the sum, so values of probability 0 are never
    # sampled.
    cumulative = logits.softmax(-1).double().cumsum(-1)
    index = torch.searchsorted(cumulative, uniform.double().unsqueeze(-1) * cumulative[..., -1:], right=True)
    return index.squeeze(-1).clamp_max(logits.shape[-1] - 1)


def _outside_nucleus(logits: Tensor, probability: float) -> Tensor:
    """Return a mask of the values outside the smallest set of the likeliest values with this total probability."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= probability)


def masked_after(step: int, steps: int, tokens: int) -> int:
    """Return how many of ``tokens`` stay masked after ``step`` (from 0) of ``steps``, by MaskGIT's cosine schedule."""
    if step + 1 >= steps:
        return 0
    return max(0, min(tokens - 1 - step, math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / steps))))
