"""Adversarial losses on the logits of a discriminator."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.core.errors import AnimegenError, did_you_mean

_CHOICES = {"kind": ("lsgan", "hinge", "vanilla"), "target": ("real", "fake"), "side": ("discriminator", "generator")}


class GANLoss(nn.Module):
    """How far logits are from what one side of the game wants them to be, averaged over all patches.

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
        target: what the logits should say, ``real`` or ``fake``. A generator's target is always ``real``.
        side: ``discriminator`` or ``generator``.

    Raises:
        AnimegenError: if a choice does not exist or a generator is told to be recognised.
    """

    def __init__(self, kind: str = "lsgan", target: str = "real", side: str = "discriminator") -> None:
        super().__init__()
        for option, value in (("kind", kind), ("target", target), ("side", side)):
            if value not in _CHOICES[option]:
                raise AnimegenError(
                    f"GANLoss has no {option} '{value}': choose one of {', '.join(_CHOICES[option])}."
                    + did_you_mean(value, _CHOICES[option])
                )
        if side == "generator" and target == "fake":
            raise AnimegenError("GANLoss with side=generator wants its pictures to pass as real: set target=real.")
        self.kind = kind
        self.target = target
        self.side = side

    def forward(self, logits: Tensor) -> Tensor:
        """Return the loss of ``logits`` of any shape, a float32 scalar."""
        x = logits.float()
        sign = 1.0 if self.target == "real" else -1.0
        if self.kind == "lsgan":
            return (x - 1).square().mean() if self.target == "real" else x.square().mean()
        if self.kind == "vanilla":
            return F.softplus(-sign * x).mean()
        return -x.mean() if self.side == "generator" else F.relu(1 - sign * x).mean()

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"{self.kind}, target={self.target}, side={self.side}"
