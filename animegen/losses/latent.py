"""Losses of latents: how far posteriors are from the prior, and vectors from their codes. Float32 scalars."""

from __future__ import annotations

import math

from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.losses.pixel import difference

SCHEDULES = ("constant", "cyclical", "capacity")


class KL(nn.Module):
    """Kullback-Leibler divergence of Gaussian posteriors from N(0, 1), in nats per value of the picture.

    Per channel the mean over batch and places of ``(mean^2 + exp(logvar) - 1 - logvar) / 2``; at least ``free_bits``
    nats of each channel are free (Kingma et al. 2016), else unused channels would die. The sum over channels, times
    the places of the latent, divided by the values (3 H W) of the picture: so a weight means the same for latents of
    any size beside a mean difference of pixels. A linear warm-up is the term's ``ramp``.

    Args:
        free_bits: nats per channel and place that cost nothing (no gradient below them).
        schedule: ``constant``; ``cyclical``: from 0 to full over the first half of each of ``cycles`` cycles (Fu et al.
            2019); ``capacity``: the distance from a target that grows linearly to ``capacity`` (Burgess et al. 2018).
        steps: train steps after which the schedule has come to its end.
        cycles: of ``cyclical``.
        capacity: of ``capacity``, in nats per value of the picture.

    Raises:
        AnimegenError: if there is no such schedule, or for numbers that make none.
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
        """Measure posteriors (B,Z,h,w) of pictures like ``image`` (.,3,H,W), at train step ``step``."""
        values = kl_per_channel(mean, logvar).clamp_min(self.free_bits)
        places = mean.shape[-1] * mean.shape[-2] / math.prod(image.shape[-3:])
        nats = values.sum() * places
        if self.schedule == "capacity":
            return (nats - self.capacity * min(1.0, step / self.steps)).abs()
        return nats * self.strength(step)

    def strength(self, step: int) -> float:
        """Return the factor in force at a train step, 0 to 1."""
        if self.schedule != "cyclical" or step >= self.steps:
            return 1.0
        length = self.steps / self.cycles
        return min(1.0, 2 * (step % length) / length)


def kl_per_channel(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the divergence (Z,) of posteriors (B,Z,h,w) from N(0,1), the mean over batch and places, in nats."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean((0, 2, 3))


class Commitment(nn.Module):
    """Mean squared distance of vectors from their codes (van den Oord et al. 2017): what keeps an encoder near them.

    Args:
        codebook: weight of the same distance with the gradient going to the codes, for codebooks that are learned by
            gradients (``ema: false``); 0 for those that are moving averages.
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
