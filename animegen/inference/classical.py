"""Frame interpolation without a model: a cross-fade, or both frames warped along optical flow."""

from __future__ import annotations

import torch
from torch import Tensor

from animegen.media.video.flow import DISFlow
from animegen.nn.inbetween.prior import weighted_half_warp


class ClassicalInterpolator:
    """Interpolation by a formula, with the protocol :class:`~animegen.tasks.protocols.Interpolator`.

    Args:
        flow: warp both frames along DIS flow, weighted by its consistency; otherwise blend them.
    """

    size_divisor = 1

    def __init__(self, flow: bool) -> None:
        self.estimator = DISFlow() if flow else None

    def encode_pair(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return both frames (B,3,H,W) in [-1,1] with the flow between them."""
        estimate = self.estimator
        if estimate is None:
            return first, last, None
        return first, last, torch.cat([estimate(first, last), estimate(last, first)], 1)

    def synthesize(self, encoded: tuple[Tensor, Tensor, Tensor | None], t: Tensor) -> Tensor:
        """Return the frames at time ``t`` (B,), (B,3,H,W) in [-1,1]."""
        first, last, flow = encoded
        if flow is None:
            return torch.lerp(first, last, t.view(-1, 1, 1, 1))
        return weighted_half_warp(first, last, flow, t).clamp(-1, 1)
