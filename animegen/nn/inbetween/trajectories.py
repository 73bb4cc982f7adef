"""The in-between frame as the average along several motions.

Each estimate of the optical flow gives three trajectories for every pixel of the frame at time t. They agree inside a
moving object and differ at its border, where each of them is wrong somewhere. The average is less wrong than any of
them. A trajectory along which both frames look alike counts more.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.inbetween.prior import FlowPrior, box_mean, flow_at, flow_confidence, half_warps, warp_weights
from animegen.nn.warp import forward_splat, resize_flow

#: Splatted pixels with a smaller sum of weights are holes.
_HOLE = 0.05
#: A confidence of 1 counts exp(5) times as much as one of 0, where two pixels move to the same place.
_IN_FRONT = 5.0
#: Side of the square over which the difference of both warped frames is averaged, in pixels of half the resolution.
_SIDE = 7
#: Added to this difference, in [0,2], before its inverse becomes the weight of a trajectory: half a grey level.
_LEAST = 0.004


class Trajectories(NamedTuple):
    """Ways of the pixels of the frame at time t.

    Attributes:
        flow: (B,N,4,H,W) in pixels, from t to the first and to the last frame.
        share: (B,N,1,H,W) in [0,1], the weight of the first frame against the last.
    """

    flow: Tensor
    share: Tensor


def trajectories(flow: Tensor, t: Tensor, accelerated: Tensor | None = None) -> Trajectories:
    """Return the three trajectories along a flow.

    - The flow at the ends, see :func:`~animegen.nn.inbetween.prior.flow_at`.
    - The flow from first to last, moved to time t with its pixels by splatting at half the resolution.
    - The same for the flow from last to first.

    Args:
        flow: (B,4,H,W) in pixels, from first to last, then from last to first.
        t: (B,) in [0,1].
        accelerated: (B,4,H,W), :func:`~animegen.nn.inbetween.acceleration.acceleration` of the pixels of both frames;
            ``None``: motion is uniform.
    """
    confidence = flow_confidence(flow)
    weight = warp_weights(confidence, t)
    time = t.to(flow.dtype).view(-1, 1, 1, 1)
    there, back = flow.split(2, 1)
    known, returned = confidence.split(1, 1)
    # How far pixels are behind where uniform motion would have them; the ways back to both frames are as much longer.
    late = None if accelerated is None else (time * (1 - time) / 2 * accelerated).split(2, 1)
    there, first_late = _moved(there, time, known, None if late is None else late[0])
    back, last_late = _moved(back, 1 - time, returned, None if late is None else late[1])
    ways = torch.stack(
        [
            flow_at(flow, t),
            torch.cat([-time * there, (1 - time) * there], 1),
            torch.cat([time * back, (time - 1) * back], 1),
        ],
        1,
    )
    if late is not None and first_late is not None and last_late is not None:
        ways += torch.stack([torch.cat(two, 1) for two in (late[::-1], [first_late] * 2, [last_late] * 2)], 1)
    even = (1 - time).expand_as(known)
    return Trajectories(ways, torch.stack([weight[:, :1] / weight.sum(1, keepdim=True), even, even], 1))


def average_warp(first: Tensor, last: Tensor, flows: Tensor, t: Tensor, accelerated: Tensor | None = None) -> Tensor:
    """Warp both frames to time ``t`` along all trajectories of several flows, and average them by their agreement.

    Args:
        first: (B,3,H,W) in [-1,1].
        last: the same.
        flows: (B,M,4,H,W) in pixels, M estimates of the flow from first to last and from last to first.
        t: (B,) in [0,1].
        accelerated: (B,M,4,H,W), see :func:`trajectories`.

    Returns:
        (B,3,H,W), not clamped; equal to the given frame at t = 0 and t = 1.
    """
    image, total = torch.zeros_like(first), torch.zeros_like(first[:, :1])
    for number, flow in enumerate(flows.unbind(1)):
        ways = trajectories(flow, t, None if accelerated is None else accelerated[:, number])
        for way, share in zip(ways.flow.unbind(1), ways.share.unbind(1), strict=True):
            early, late = half_warps(first, last, way)
            weight = _agreement(early, late)
            image += weight * torch.lerp(late, early, share)
            total += weight
    return image / total


@torch.no_grad()
def lead_of_average(first: Tensor, last: Tensor, prior: FlowPrior, t: Tensor, mode: str) -> Tensor:
    """Return what the average of all trajectories adds to the half-warp along the first flow, (B,3,H,W).

    A network whose output is this half-warp before training, along flows that it corrects, adds it and so starts as
    the average. 0 at t = 0 and t = 1, and where there is no motion.

    Args:
        first: (B,3,H,W) in [-1,1].
        last: the same.
        prior: of the pair, with estimates.
        t: (B,) in [0,1].
        mode: sampling of the half-warp, ``bilinear`` or ``bicubic``.
    """
    first, last = first.float(), last.float()
    early, late = half_warps(first, last, flow_at(prior.flow, t), mode)
    weight = warp_weights(prior.confidence, t)
    plain = torch.lerp(late, early, weight[:, :1] / weight.sum(1, keepdim=True))
    return average_warp(first, last, torch.stack(prior.estimates, 1), t) - plain


def _agreement(early: Tensor, late: Tensor) -> Tensor:
    """Return the weight (B,1,H,W) of a trajectory: the inverse of the difference of both warped frames around."""
    difference = F.avg_pool2d((early - late).abs().mean(1, keepdim=True), 2, ceil_mode=True)
    weight = 1 / (box_mean(difference, _SIDE) + _LEAST)
    return F.interpolate(weight, early.shape[-2:], mode="bilinear", align_corners=False)


def _moved(flow: Tensor, time: Tensor, confidence: Tensor, late: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Move a flow (B,2,H,W) along itself by the share ``time``, less ``late``; holes keep the flow at their place.

    Returns:
        The flow, and ``late``, where they are then.
    """
    height, width = flow.shape[-2:]
    half = (max(height // 2, 1), max(width // 2, 1))
    small = resize_flow(flow, *half)
    importance = _IN_FRONT * F.adaptive_avg_pool2d(confidence, half)
    if late is None:
        moved, density = forward_splat(small, time * small, importance)
        return resize_flow(torch.where(density > _HOLE, moved, small), height, width), None
    small_late = resize_flow(late, *half)
    both = torch.cat([small, small_late], 1)
    moved, density = forward_splat(both, time * small - small_late, importance)
    flow, late = (resize_flow(part, height, width) for part in torch.where(density > _HOLE, moved, both).split(2, 1))
    return flow, late
