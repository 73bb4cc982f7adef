"""A flow prior: networks that correct a given optical flow, and the half-warp along it, where they start."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.inbetween.base import InbetweenNetwork
from animegen.nn.warp import backward_warp, inside

#: Where the flow of a pair is from; ``none``: there is no prior.
PRIORS = ("dis", "none", "exact")

#: Tolerance of the forward-backward error: a share of the squared lengths (Sundaram et al. 2010), and squared pixels.
_RELATIVE, _ABSOLUTE = 0.01, 2.0
#: Side of the square over which the confidence is averaged, in pixels.
_SIDE = 9
#: Weight of a pixel without confidence: where the flow is doubtful, the mean of both warps is less wrong than one.
_FLOOR = 0.3


def flow_confidence(flow: Tensor) -> Tensor:
    """Return the confidence of a flow in both directions by forward-backward consistency, (B,2,H,W) in [0,1].

    Args:
        flow: (B,4,H,W) in pixels, from first to last, then from last to first.

    Returns:
        The confidence of each direction on its own grid, averaged over a square: near 1 where the flow there and back
        agree, 0 where it leaves the image.
    """
    there, back = flow.float().split(2, 1)
    both, other = torch.cat([there, back]), torch.cat([back, there])
    returned = backward_warp(other, both)
    gap = (both + returned).square().sum(1, keepdim=True)
    length = both.square().sum(1, keepdim=True) + returned.square().sum(1, keepdim=True)
    agreement = torch.exp(-gap / (_RELATIVE * length + _ABSOLUTE)) * inside(both)
    return torch.cat(box_mean(agreement, _SIDE).chunk(2), 1)


def box_mean(x: Tensor, side: int) -> Tensor:
    """Return the mean of each square of odd ``side`` of (B,C,H,W); at the border, of the part within the image."""
    for rows, columns in ((side, 1), (1, side)):  # faster than the square at once
        x = F.avg_pool2d(x, (rows, columns), 1, (rows // 2, columns // 2), count_include_pad=False)
    return x


def flow_at(flow: Tensor, t: Tensor) -> Tensor:
    """Return the flow (B,4,H,W) from time ``t`` (B,) to the first and to the last frame.

    It is approximated by the flow at the ends: ``t`` times that from last to first, and ``1 - t`` times that from first
    to last.

    Args:
        flow: (B,4,H,W) in pixels, from first to last, then from last to first.
        t: (B,) in [0,1].
    """
    t = t.to(flow.dtype).view(-1, 1, 1, 1)
    there, back = flow.split(2, 1)
    return torch.cat([t * back, (1 - t) * there], 1)


def warp_weights(confidence: Tensor, t: Tensor) -> Tensor:
    """Return the weights (B,2,H,W) of the warped first and last frame, not normalised; 0 at t = 1 and t = 0.

    Args:
        confidence: (B,2,H,W) from :func:`flow_confidence`.
        t: (B,) in [0,1].
    """
    t = t.to(confidence.dtype).view(-1, 1, 1, 1)
    there, back = confidence.split(1, 1)
    return torch.cat([(1 - t) * (_FLOOR + back), t * (_FLOOR + there)], 1)


def weight_ratio(confidence: Tensor) -> Tensor:
    """Return the ratio (B,1,H,W) of both weights of :func:`warp_weights` at t = 0.5."""
    there, back = confidence.split(1, 1)
    return (_FLOOR + back) / (_FLOOR + there)


def half_warps(first: Tensor, last: Tensor, flow: Tensor, mode: str = "bicubic") -> tuple[Tensor, Tensor]:
    """Return both frames (B,3,H,W) warped along their half of a flow (B,4,H,W) from :func:`flow_at`."""
    to_first, to_last = flow.split(2, 1)
    return backward_warp(first, to_first, mode=mode), backward_warp(last, to_last, mode=mode)


def weighted_half_warp(first: Tensor, last: Tensor, flow: Tensor, t: Tensor) -> Tensor:
    """Warp both frames to time ``t`` and average them, weighted by time and by the consistency of the flow.

    Args:
        first: (B,3,H,W) in [-1,1].
        last: the same.
        flow: (B,4,H,W) in pixels, from first to last, then from last to first.
        t: (B,) in [0,1].

    Returns:
        (B,3,H,W), not clamped; equal to the given frame at t = 0 and t = 1.
    """
    early, late = half_warps(first, last, flow_at(flow, t))
    weight = warp_weights(flow_confidence(flow), t)
    return torch.lerp(late, early, weight[:, :1] / weight.sum(1, keepdim=True))


class FlowPrior(NamedTuple):
    """What is known about the motion between two frames.

    Attributes:
        flow: (B,4,H,W) in pixels, from first to last, then from last to first.
        confidence: (B,2,H,W) in [0,1], of each direction.
        estimates: (B,4,H,W) each, this flow and other estimates of it; none without a prior.
    """

    flow: Tensor
    confidence: Tensor
    estimates: tuple[Tensor, ...] = ()


class PriorNetwork(InbetweenNetwork):
    """Base class of networks that correct an optical flow between both frames, their prior.

    The network does not estimate the flow: training and application give it to :meth:`encode_pair`. Without one it is 0
    everywhere, with a confidence of 0, and the network has to find the motion itself.

    Args:
        prior: ``dis``: pairs that come without a flow get one by DIS (see
            :class:`~animegen.tasks.inbetween.InbetweenModule`); ``none``: they have no prior; ``exact``: the true flow
            of generated clips, an upper bound for studies, which cannot be applied to other frames.
        prior_dropout: share of the training samples whose prior is removed, so that ``none`` works, too.

    Raises:
        AnimegenError: if there is no such prior.
    """

    def __init__(self, prior: str, prior_dropout: float) -> None:
        super().__init__()
        if prior not in PRIORS:
            raise AnimegenError(
                f"{type(self).__name__} has no prior '{prior}': use {', '.join(PRIORS)}.{did_you_mean(prior, PRIORS)}"
            )
        self.prior, self.prior_dropout = prior, prior_dropout

    def encode_pair(
        self,
        first: Tensor,
        last: Tensor,
        flow: Tensor | None = None,
        confidence: Tensor | None = None,
        second_flow: Tensor | None = None,
    ) -> dict[str, Any]:
        """Return the frames with their ``prior``, a :class:`FlowPrior`.

        Args:
            first: (B,3,H,W) in [-1,1].
            last: the same.
            flow: (B,4,H,W) in pixels, from first to last, then from last to first; ``None``: no prior.
            confidence: (B,2,H,W), by default :func:`flow_confidence` of the flow.
            second_flow: another estimate of the flow.

        Raises:
            AnimegenError: if a side is not a multiple of ``size_divisor``.
        """
        state = super().encode_pair(first, last)
        if flow is None:
            zeros = first.new_zeros(len(first), 4, *first.shape[-2:], dtype=torch.float32)
            return {**state, "prior": FlowPrior(zeros, zeros[:, :2])}
        if confidence is None:
            confidence = flow_confidence(flow)
        if self.training and self.prior_dropout:
            kept = (torch.rand(len(first), 1, 1, 1, device=first.device) >= self.prior_dropout).to(flow.dtype)
            flow, confidence = kept * flow, kept * confidence
            second_flow = None if second_flow is None else kept * second_flow
        estimates = (flow,) if second_flow is None else (flow, second_flow)
        return {**state, "prior": FlowPrior(flow, confidence, estimates)}
