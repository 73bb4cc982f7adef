"""Choosing codes: by chance or not, one generator of chance per clip, with guidance by the last frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from animegen.tasks.protocols import Sampling

__all__ = ["Draw", "Sampling", "masked_after", "pick"]


class Draw:
    """The choices of one call of ``generate``.

    Every clip has a generator of its own, seeded with ``seed + b``, so that it does not depend on its neighbours in the
    batch. With guidance every clip has two rows in the transformer: with its last frame, and B rows later without.

    Args:
        sampling: how to choose.
        clips: their number B.
        nothing: the token that stands for a last frame that is not told.
        device: where the codes are.
    """

    def __init__(self, sampling: Sampling, clips: int, nothing: int, device: torch.device) -> None:
        self.sampling, self.nothing, self.device = sampling, nothing, device
        self.guided = sampling.guidance != 1
        # On the CPU, so that a seed means the same clip on every device.
        self._generators = [torch.Generator().manual_seed(sampling.seed + number) for number in range(clips)]

    def uniform(self, *shape: int) -> Tensor:
        """Return numbers in [0, 1), (B,*shape)."""
        return torch.stack([torch.rand(shape, generator=g) for g in self._generators]).to(self.device)

    def rows(self, clip: Tensor) -> Tensor:
        """Return the rows (B or 2B,T,h,w) that the transformer reads for clips (B,T,h,w)."""
        if not self.guided:
            return clip
        blind = clip.clone()
        blind[:, -1] = self.nothing
        return torch.cat([clip, blind])

    def both(self, values: Tensor) -> Tensor:
        """Return what belongs to the clips (B,...) once per row (B or 2B,...)."""
        return torch.cat([values, values]) if self.guided else values

    def merged(self, logits: Tensor) -> Tensor:
        """Return one set of logits per clip, (B,...,K), from one per row (B or 2B,...,K)."""
        if not self.guided:
            return logits
        told, blind = logits.chunk(2)
        return torch.lerp(blind, told, self.sampling.guidance)

    def codes(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Choose a code for each of the clips' logits (B,...,K); ``uniform`` in [0, 1) has the same shape but K."""
        return pick(logits, uniform, self.sampling)


def pick(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """Choose one value for each row of logits.

    The choice is the inverse of the cumulative distribution at a given number: exact sampling from one uniform number.

    Args:
        logits: ``(...,K)``.
        uniform: ``(...)`` in [0, 1).
        sampling: temperature, top_k, top_p and greedy are used, in this order.

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
        logits = logits.masked_fill(_tail(logits, sampling.top_p), -torch.inf)
    # In double precision a number below 1 stays below the sum, so that no value of probability 0 is ever chosen.
    shares = logits.softmax(-1).double().cumsum(-1)
    place = torch.searchsorted(shares, uniform.double().unsqueeze(-1) * shares[..., -1:], right=True)
    return place.squeeze(-1).clamp_max(logits.shape[-1] - 1)


def _tail(logits: Tensor, share: float) -> Tensor:
    """Return which values are not among the likeliest that together reach the share; the likeliest one always is."""
    ordered, order = logits.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= share)


def masked_after(step: int, steps: int, tokens: int) -> int:
    """Return how many of ``tokens`` are still masked after step 0, 1, ... of ``steps`` (MaskGIT's cosine schedule)."""
    if step + 1 >= steps:
        return 0
    return max(0, min(tokens - 1 - step, math.floor(tokens * math.cos(math.pi / 2 * (step + 1) / steps))))
