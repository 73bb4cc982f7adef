"""Losses on latents: divergence of posteriors from the prior, and commitment to codes."""

from __future__ import annotations

import math

from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.losses.pixel import difference

SCHEDULES = ("constant", "cyclical", "capacity")


class KL(nn.Module):
    """Kullback-Leibler divergence of Gaussian posteriors from N(0, 1), in nats per value of the image.

    Per channel the mean of ``(mean^2 + exp(logvar) - 1 - logvar) / 2`` over batch and positions, clamped to at least
    ``free_bits`` (Kingma et al. 2016) against the collapse of channels. The sum over channels, times the number of
    positions, is divided by the number of image values (3 H W), so that a weight relative to a mean pixel loss does not
    depend on the size of the latents. For a linear warm-up use the term's ``ramp``.

    Args:
        free_bits: nats per channel and position without cost or gradient.
        schedule: ``constant``; ``cyclical``: from 0 to 1 over the first half of each of ``cycles`` cycles (Fu et al.
            2019); ``capacity``: the distance from a target that grows linearly to ``capacity`` (Burgess et al. 2018).
        steps: train steps after which the schedule ends.
        cycles: number of cycles of ``cyclical``.
        capacity: final target of ``capacity``, in nats per value of the image.

    Raises:
        AnimegenError: for an unknown schedule or invalid numbers.
    """

    def __init__(
        self,
        free_bits: float = 0.0,
        schedule: str = "constant",
        steps: int = 10_000,
        cycles: int = 4,
        capacity: float = 0.02,
    ) -> None:
        super().__init__()
        if schedule not in SCHEDULES:
            raise AnimegenError(
                f"KL has no schedule '{schedule}': choose one of {', '.join(SCHEDULES)}."
                + did_you_mean(schedule, SCHEDULES)
            )
        if free_bits < 0 or steps < 1 or cycles < 1:
            raise AnimegenError("KL needs free_bits >= 0, steps >= 1 and cycles >= 1: correct them.")
        self.free_bits, self.schedule, self.steps = free_bits, schedule, steps
        self.cycles, self.capacity = cycles, capacity

    def forward(self, mean: Tensor, logvar: Tensor, image: Tensor, step: int = 0) -> Tensor:
        """Return the loss of posteriors (B,Z,h,w) at train step ``step``; ``image`` (.,3,H,W) gives the image size."""
        values = kl_per_channel(mean, logvar).clamp_min(self.free_bits)
        places = mean.shape[-1] * mean.shape[-2] / math.prod(image.shape[-3:])
        nats = values.sum() * places
        if self.schedule == "capacity":
            return (nats - self.capacity * min(1.0, step / self.steps)).abs()
        return nats * self.strength(step)

    def strength(self, step: int) -> float:
        """Return the factor at a train step, 0 to 1."""
        if self.schedule != "cyclical" or step >= self.steps:
            return 1.0
        length = self.steps / self.cycles
        return min(1.0, 2 * (step % length) / length)


def kl_per_channel(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the divergence (Z,) of posteriors (B,Z,h,w) from N(0,1), the mean over batch and positions, in nats."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean((0, 2, 3))


class Commitment(nn.Module):
    """Commitment loss (van den Oord et al. 2017): mean squared distance of vectors from their codes.

    Args:
        codebook: weight of the same distance with gradients to the codes, for codebooks learned by gradients
            (``ema: false``); 0 for moving averages.
    """

    def __init__(self, codebook: float = 0.0) -> None:
        super().__init__()
        self.codebook = codebook

    def forward(self, encoded: Tensor, nearest: Tensor) -> Tensor:
        """Compare maps (B,D,h,w) with the vectors of their codes, (B,D,h,w)."""
        loss = difference(encoded, nearest.detach(), self).square().mean()
        if self.codebook:
            loss = loss + self.codebook * difference(encoded.detach(), nearest, self).square().mean()
        return loss
