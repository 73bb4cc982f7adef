"""Frame interpolation without a model: a cross-fade, or both frames warped along optical flow."""

from __future__ import annotations

import torch
from torch import Tensor

from animegen.media.video.flow import flow_estimates
from animegen.nn.inbetween.trajectories import average_warp


class ClassicalInterpolator:
    """Interpolation by a formula, with the protocol :class:`~animegen.tasks.protocols.Interpolator`.

    Args:
        flow: warp both frames along two estimates of their flow, see
            :func:`~animegen.nn.inbetween.trajectories.average_warp`; otherwise blend them.
    """

    size_divisor = 1

    def __init__(self, flow: bool) -> None:
        self.flow = flow

    def encode_pair(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return both frames (B,3,H,W) in [-1,1] with the flows between them."""
        return first, last, flow_estimates(first, last) if self.flow else None

    def synthesize(self, encoded: tuple[Tensor, Tensor, Tensor | None], t: Tensor) -> Tensor:
        """Return the frames at time ``t`` (B,), (B,3,H,W) in [-1,1]."""
        first, last, flows = encoded
        if flows is None:
            return torch.lerp(first, last, t.view(-1, 1, 1, 1))
        return average_warp(first, last, flows, t).clamp(-1, 1)
