"""Fusion of two frames that are warped along a given flow, which the network corrects."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import scale_channels
from animegen.nn.inbetween.base import InbetweenOutput, bump, time_map, zero_init
from animegen.nn.inbetween.prior import FlowPrior, PriorNetwork, flow_at, half_warps, warp_weights
from animegen.nn.inbetween.trajectories import lead_of_average
from animegen.nn.warp import backward_warp

#: Flows are divided by this many pixels, which brings them to about the range of images.
_PIXELS = 20.0
#: Largest change of the logarithm of the ratio of both weights.
_LARGEST = 10.0


def _convs(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1, inplace=True))


class _Stage(nn.Module):
    """Convolutions at one resolution with a residual connection, and an output layer that is initially 0."""

    def __init__(self, inputs: int, width: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.first = _convs(inputs, width)
        self.middle = nn.Sequential(*(_convs(width, width) for _ in range(depth)))
        self.last = zero_init(nn.Conv2d(width, outputs, 3, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden values (B,width,H,W) and the output (B,outputs,H,W), float32."""
        x = self.first(x)
        x = x + self.middle(x)
        return x, self.last(x).float()


class WarpFusion(PriorNetwork):
    """Warp both frames along a flow prior, correct the flow, choose what is visible, and add what is missing.

    The prior is the optical flow in both directions, by DIS. From 1/16 to 1/4 of the resolution, stages read learned
    features of both frames, warped by the flow so far, and correct it. The last stage, at 1/2, reads both warped frames
    and predicts the ratio of their weights and a residual for each pixel. Before training all corrections are 0, and
    the output is :func:`~animegen.nn.inbetween.trajectories.average_warp`, or without a prior the cross-fade. At t = 0
    and t = 1 it always equals the given frame.

    Extra values: ``flow`` (B,4,H,W), ``mask`` (B,1,H,W), the weight of the first frame, and ``merged`` (B,3,H,W), the
    result before the residual is added.

    Args:
        prior: see :class:`~animegen.nn.inbetween.prior.PriorNetwork`.
        prior_dropout: see there.
        channels: channels of the features at 1/2, 1/4, 1/8 and 1/16 of the resolution, at width 1.
        widths: channels of the stages at the same resolutions.
        depth: convolutions per stage after the first.
        width: factor on all channel counts.
    """

    size_divisor = 16

    def __init__(
        self,
        prior: str = "dis",
        prior_dropout: float = 0.1,
        channels: Sequence[int] = (16, 32, 64, 96),
        widths: Sequence[int] = (24, 64, 96, 96),
        depth: int = 2,
        width: float = 1.0,
    ) -> None:
        super().__init__(prior, prior_dropout)
        sizes = [scale_channels(c, width) for c in channels]
        hidden = [scale_channels(c, width) for c in widths]
        self.stem = _convs(12, sizes[0])
        self.encoder = nn.ModuleList(nn.Sequential(_convs(a, b, 2), _convs(b, b)) for a, b in pairwise(sizes))
        # Coarse to fine. Inputs: warped features, flow, confidence, time, hidden values of the stage before.
        before = [0, *reversed(hidden[1:-1])]
        self.stages = nn.ModuleList(
            _Stage(2 * c + 7 + b, w, 4, depth)
            for c, w, b in zip(reversed(sizes[1:]), reversed(hidden[1:]), before, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(a, b, 1) for b, a in reversed(list(pairwise(hidden))))
        # Inputs: both warped frames and their difference, flow, weight, time, hidden values. Outputs, for 2x2 pixels:
        # logarithm of the factor on the weight of the first frame, residual.
        self.fuse = _Stage(36 + 6 + hidden[0], hidden[0], 16, depth - 1)

    def encode_pair(self, first: Tensor, last: Tensor, *prior: Tensor | None, **named: Tensor | None) -> dict[str, Any]:
        """Compute the features of both frames."""
        state = super().encode_pair(first, last, *prior, **named)
        x = self.stem(F.pixel_unshuffle(torch.cat([first, last]), 2))
        features = []
        for level in self.encoder:
            x = level(x)
            features.append(x.chunk(2))
        return {**state, "features": features[::-1]}

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,)."""
        first, last = state["first"], state["last"]
        prior: FlowPrior = state["prior"]
        flow = flow_at(prior.flow, t)
        weight = warp_weights(prior.confidence, t)
        time = t.to(flow.dtype).view(-1, 1, 1, 1)
        fraction = torch.cat([time, time, 1 - time, 1 - time], 1)
        hidden: Tensor | None = None
        scale = 16
        for stage, narrow, (early, late) in zip(self.stages, self.narrow, state["features"], strict=True):
            small = F.avg_pool2d(flow, scale) / scale
            to_first, to_last = small.split(2, 1)
            inputs = [backward_warp(early, to_first), backward_warp(late, to_last), small * (scale / _PIXELS)]
            inputs += [F.avg_pool2d(prior.confidence, scale), time_map(t, small)]
            hidden, change = stage(torch.cat(inputs if hidden is None else [*inputs, hidden], 1))
            flow = flow + fraction * scale * _larger(change, scale)
            hidden = _larger(narrow(hidden), 2)
            scale //= 2
        assert hidden is not None
        early, late = half_warps(first, last, flow)
        share = weight[:, :1] / weight.sum(1, keepdim=True)
        pixels = F.pixel_unshuffle(torch.cat([early, late, early - late], 1), 2)
        halved = F.avg_pool2d(torch.cat([flow / _PIXELS, share], 1), 2)
        _, output = self.fuse(torch.cat([pixels, halved, time_map(t, halved), hidden], 1))
        change, residual = F.pixel_shuffle(output, 2).split([1, 3], 1)
        changed = weight[:, :1] * change.clamp(-_LARGEST, _LARGEST).exp()
        mask = changed / (changed + weight[:, 1:])
        merged = torch.lerp(late, early, mask)
        if prior.estimates:
            merged = merged + lead_of_average(first, last, prior, t, "bicubic")
        image = merged + bump(t, merged) * residual
        return InbetweenOutput(image, {"flow": flow, "mask": mask, "merged": merged})


def _larger(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
