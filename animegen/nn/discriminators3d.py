"""Patch discriminator for clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.conv import SLOPE, scale_channels
from animegen.nn.singular import clip_singular_values
from animegen.nn.spectral import SpectralNorm

CONSTRAINTS = ("sn", "svc", "none")

#: Frames that a clip must have.
SHORTEST = 3


class _Scale(nn.Sequential):
    """Five 3-D convolutions: three of (3,4,4) with stride (1,2,2), (3,4,4), and (1,4,4) to the logit."""

    def __init__(self, width: float) -> None:
        c64, c128, c256, c512 = (scale_channels(c, width) for c in (64, 128, 256, 512))
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, c64, 2), (c64, c128, 2), (c128, c256, 2), (c256, c512, 1)):
            layers.append(nn.Conv3d(inputs, outputs, (3, 4, 4), (1, stride, stride), padding=1))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        layers.append(nn.Conv3d(c512, 1, (1, 4, 4), padding=(0, 1, 1)))
        super().__init__(*layers)


class TemporalPatchGAN(nn.Module):
    """Patch discriminator for clips with a receptive field of 9 frames of 70 x 70 pixels.

    No norm. 8,275,905 parameters per scale at width 1.

    Args:
        constraint: ``sn``, spectral norm of every layer; ``svc``, singular value clipping, for which training must call
            :meth:`clip`, as TGAN does after every fifth step; or ``none``.
        scales: 2 adds a second network for every second frame, sensitive to slow motion (vid2vid).
        width: factor on the channels.

    Raises:
        AnimegenError: for an unknown constraint.
    """

    size_divisor = 8

    def __init__(self, constraint: str = "sn", scales: int = 1, width: float = 1.0) -> None:
        super().__init__()
        if constraint not in CONSTRAINTS:
            raise AnimegenError(
                f"constraint={constraint} is unknown: use one of {', '.join(CONSTRAINTS)}."
                + did_you_mean(constraint, CONSTRAINTS)
            )
        if scales not in (1, 2):
            raise AnimegenError(f"A temporal discriminator has scales=1 or scales=2, not {scales}.")
        self.constraint = constraint
        self.parts = nn.ModuleList(_Scale(width) for _ in range(scales))
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv3d):
                nn.init.normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
                if constraint == "sn":
                    nn.utils.parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight.detach()))

    def forward(self, clips: Tensor) -> Tensor:
        """Map clips (B,T,3,H,W) in [-1,1] to logits (B,scales,T,h,w); higher = more real.

        Sides must be at least 32 pixels. The logits of the second scale are repeated to the size of the first, so that
        both have equal weight.

        Raises:
            AnimegenError: if the clip has fewer than 3 frames.
        """
        if clips.shape[1] < SHORTEST:
            raise AnimegenError(
                f"The temporal discriminator needs clips of {SHORTEST} or more frames, not {clips.shape[1]}: set"
                " data.length."
            )
        logits: list[Tensor] = []
        for number, part in enumerate(self.parts):
            found = part(clips[:, :: number + 1].transpose(1, 2))
            logits.append(found if not logits else F.interpolate(found, logits[0].shape[2:], mode="nearest"))
        return torch.cat(logits, 1)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> TemporalPatchGAN:
        # torch rejects channels_last for models with 5-D weights: pass them on with 4 dimensions.
        def flattened(value: Tensor) -> Tensor:
            return fn(value.flatten(3)).reshape(value.shape).contiguous() if value.dim() == 5 else fn(value)

        super()._apply(flattened, recurse)
        return self

    def clip(self) -> None:
        """Clip the singular values of all layers to 1, if the constraint is ``svc``."""
        if self.constraint == "svc":
            clip_singular_values(self)
