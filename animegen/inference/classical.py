"""Frame interpolation without a model: a cross-fade, or both frames warped along optical flow."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from animegen.media.video.flow import flow_estimates
from animegen.nn.inbetween.acceleration import Adjacent, acceleration
from animegen.nn.inbetween.prior import flow_confidence
from animegen.nn.inbetween.trajectories import average_warp


class EncodedFrames(NamedTuple):
    """Return value of :meth:`ClassicalInterpolator.encode_pair`.

    Attributes:
        first: (B,3,H,W) in [-1,1].
        last: the same.
        flows: (B,M,4,H,W) in pixels, estimates of the flow from first to last and from last to first; ``None`` for a
            cross-fade.
        accelerated: (B,M,4,H,W), accelerations of the pixels of both frames; ``None``: motion is uniform.
    """

    first: Tensor
    last: Tensor
    flows: Tensor | None
    accelerated: Tensor | None = None


class ClassicalInterpolator:
    """Interpolation by a formula, with the protocol :class:`~animegen.tasks.protocols.NeighbourInterpolator`.

    Args:
        flow: warp both frames along estimates of their flow, see
            :func:`~animegen.nn.inbetween.trajectories.average_warp`; otherwise blend them.
        estimates: how many, see :func:`~animegen.media.video.flow.flow_estimates`.
    """

    size_divisor = 1

    def __init__(self, flow: bool, estimates: int = 2) -> None:
        self.flow, self.estimates = flow, estimates

    def encode_pair(self, first: Tensor, last: Tensor) -> EncodedFrames:
        """Return both frames (B,3,H,W) in [-1,1] with the flows between them."""
        return EncodedFrames(first, last, flow_estimates(first, last, count=self.estimates) if self.flow else None)

    def encode_among(
        self,
        encoded: EncodedFrames,
        before: tuple[EncodedFrames, float] | None,
        after: tuple[EncodedFrames, float] | None,
    ) -> EncodedFrames:
        """Return the pair with the accelerations that the flows of its neighbours tell.

        Args:
            encoded: from :meth:`encode_pair`.
            before: the pair that ends with the first frame, and its length in units of that of this pair.
            after: the pair that begins with the last frame.
        """
        if encoded.flows is None or (before is None and after is None):
            return encoded
        found = [
            acceleration(flow, flow_confidence(flow), _adjacent(before, number, 1), _adjacent(after, number, 0))
            for number, flow in enumerate(encoded.flows.unbind(1))
        ]
        return encoded._replace(accelerated=torch.stack(found, 1))

    def synthesize(self, encoded: EncodedFrames, t: Tensor) -> Tensor:
        """Return the frames at time ``t`` (B,), (B,3,H,W) in [-1,1]."""
        first, last, flows, accelerated = encoded
        if flows is None:
            return torch.lerp(first, last, t.view(-1, 1, 1, 1))
        return average_warp(first, last, flows, t, accelerated).clamp(-1, 1)


def _adjacent(pair: tuple[EncodedFrames, float] | None, number: int, direction: int) -> Adjacent | None:
    """Return a flow of a neighbouring pair: estimate ``number``, from first to last (0), or from last to first (1)."""
    if pair is None or pair[0].flows is None:
        return None
    flow = pair[0].flows[:, number]
    own, known = flow.split(2, 1)[direction], flow_confidence(flow).split(1, 1)[direction]
    return Adjacent(own, known, pair[1])
