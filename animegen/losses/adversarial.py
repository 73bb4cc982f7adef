"""Adversarial losses on the logits of a discriminator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean

_CHOICES = {"kind": ("lsgan", "hinge", "vanilla"), "target": ("real", "fake"), "side": ("discriminator", "generator")}


class GANLoss(nn.Module):
    """Adversarial loss of a discriminator's logits, averaged over all patches.

    ===========  ========================  ========================  ========================
    kind         discriminator, real       discriminator, fake       generator
    ===========  ========================  ========================  ========================
    ``lsgan``    mean (x - 1)^2            mean x^2                  mean (x - 1)^2
    ``hinge``    mean relu(1 - x)          mean relu(1 + x)          -mean x
    ``vanilla``  mean softplus(-x)         mean softplus(x)          mean softplus(-x)
    ===========  ========================  ========================  ========================

    Args:
        kind: ``lsgan`` (Mao et al. 2017), ``hinge`` (Lim and Ye 2017) or ``vanilla`` (Goodfellow et al. 2014; the
            generator's form is the non-saturating one).
        target: ``real`` or ``fake``; always ``real`` for a generator.
        side: ``discriminator`` or ``generator``.
        real_label: target of real samples in ``lsgan`` (mean (x - label)^2) and ``vanilla`` (cross entropy with that
            probability). Labels such as 0.9 and 0.1 keep a discriminator from becoming overconfident; AnimeGANv3 uses
            them for its support tail.
        fake_label: target of generated samples.

    Raises:
        AnimegenError: for an unknown choice, a generator with the target ``fake``, or invalid labels.
    """

    def __init__(
        self,
        kind: str = "lsgan",
        target: str = "real",
        side: str = "discriminator",
        real_label: float = 1.0,
        fake_label: float = 0.0,
    ) -> None:
        super().__init__()
        for option, value in (("kind", kind), ("target", target), ("side", side)):
            if value not in _CHOICES[option]:
                raise AnimegenError(
                    f"GANLoss has no {option} '{value}': choose one of {', '.join(_CHOICES[option])}."
                    + did_you_mean(value, _CHOICES[option])
                )
        if side == "generator" and target == "fake":
            raise AnimegenError("GANLoss with side=generator does not accept target=fake: set target=real.")
        if kind == "hinge" and (real_label, fake_label) != (1.0, 0.0):
            raise AnimegenError("GANLoss with kind=hinge has no labels: remove real_label and fake_label.")
        if kind == "vanilla" and not 0 <= fake_label <= real_label <= 1:
            raise AnimegenError(
                f"The labels of GANLoss with kind=vanilla are probabilities, not real_label={real_label} and"
                f" fake_label={fake_label}: choose 0 <= fake_label <= real_label <= 1."
            )
        self.kind = kind
        self.target = target
        self.side = side
        self.label = float(real_label if target == "real" else fake_label)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the loss of ``logits`` of any shape, a float32 scalar."""
        x = logits.float()
        if self.kind == "lsgan":
            return (x - self.label).square().mean()
        if self.kind == "vanilla":
            return F.binary_cross_entropy_with_logits(x, torch.full_like(x, self.label))
        sign = 1.0 if self.target == "real" else -1.0
        return -x.mean() if self.side == "generator" else F.relu(1 - sign * x).mean()

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"{self.kind}, target={self.target} ({self.label:g}), side={self.side}"
