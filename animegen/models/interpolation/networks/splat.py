"""Forward warping by softmax splatting (Niklaus and Liu 2020; EISAI, Chen and Zwicker 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.colour import rgb_to_lab
from animegen.nn.conv import scale_channels
from animegen.nn.inbetween.base import InbetweenOutput, blend, bump
from animegen.nn.inbetween.flow import FlowBlock
from animegen.nn.inbetween.prior import PriorNetwork
from animegen.nn.inbetween.unet import UNet
from animegen.nn.warp import backward_warp, forward_splat

#: Weight of the CIE Lab distance between a pixel and its match in the other frame (EISAI): better matches are in front.
_IMPORTANCE = -0.1


class PairFlow(nn.Module):
    """Coarse-to-fine flow between both frames in both directions; independent of the time, initially the prior or 0.

    Args:
        scales: scales of the flow, see :class:`~animegen.nn.inbetween.flow.FlowPyramid`.
        widths: channels of its stages at width 1.
        features: channels of its learned features.
        depth: convolutions per stage.
        width: factor on the channel counts.
    """

    def __init__(
        self, scales: Sequence[int], widths: Sequence[int], features: int = 8, depth: int = 6, width: float = 1.0
    ) -> None:
        super().__init__()
        self.size_divisor = 4 * max(scales)
        self.stem = nn.Sequential(
            nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features), nn.Conv2d(features, features, 3, 1, 1)
        )
        inputs = 4 * (3 + features) + 4
        self.stages = nn.ModuleList(
            FlowBlock(inputs, 4, scale_channels(channels, width), scale, depth)
            for scale, channels in zip(scales, widths, strict=True)
        )

    def forward(self, first: Tensor, last: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the flows from first to last and back, (B,2,H,W) in pixels, and the features (2B,C,H,W) of both.

        Args:
            first: (B,3,H,W) in [-1,1].
            last: the same.
            flow: (B,4,H,W) in pixels, both flows to start from.
        """
        pair = torch.cat([first, last])
        features = self.stem(pair)
        a, b = torch.cat([pair, features], 1).chunk(2)
        for stage in self.stages:
            forward, backward = flow.split(2, 1)
            inputs = torch.cat([a, b, backward_warp(b, forward), backward_warp(a, backward)], 1)
            flow = flow + stage(inputs, flow)
        forward, backward = flow.split(2, 1)
        return forward, backward, features


class SoftSplatLite(PriorNetwork):
    """Forward warping: both frames are splatted to time t, merged, and refined by a U-Net.

    The flows are computed once per pair. Where several pixels land on one, those that match the other frame best lie
    in front. Holes of one warped frame are filled from the other one, holes of both from the cross-fade. At t = 0 and
    t = 1 the output equals the given frame.

    Extra values: ``carried`` (2B,3,H,W), each frame reconstructed from the other one by the flow, and ``ends``, the
    frames that it should equal; ``merged`` (B,3,H,W), the result before refinement; ``coverage`` (B,2,H,W), the mask of
    the pixels that a splatted frame covers.

    Args:
        scales: scales of the flow, see :class:`~animegen.nn.inbetween.flow.FlowPyramid`.
        widths: channels of its stages at width 1.
        features: channels of its learned features.
        depth: convolutions per stage.
        refine: channels of the levels of the refinement U-Net at width 1.
        width: factor on all channel counts.
        prior: see :class:`~animegen.nn.inbetween.prior.PriorNetwork`.
        prior_dropout: see there.
    """

    def __init__(
        self,
        scales: Sequence[int] = (8, 4, 2, 1),
        widths: Sequence[int] = (192, 128, 64, 48),
        features: int = 8,
        depth: int = 6,
        refine: Sequence[int] = (32, 64, 128, 256),
        width: float = 1.0,
        prior: str = "none",
        prior_dropout: float = 0.1,
    ) -> None:
        super().__init__(prior, prior_dropout)
        self.flow = PairFlow(scales, widths, features, depth, width)
        # Both splatted frames with their features, their coverage, and the merged frame.
        self.refine = UNet(2 * (3 + features) + 2 + 3, 3, [scale_channels(c, width) for c in refine])
        self.size_divisor = max(self.flow.size_divisor, self.refine.size_divisor)

    def encode_pair(self, first: Tensor, last: Tensor, *prior: Tensor | None, **named: Tensor | None) -> dict[str, Any]:
        """Compute the flows between the frames, and the importance of each pixel in splatting."""
        state = super().encode_pair(first, last, *prior, **named)
        forward, backward, features = self.flow(first, last, state["prior"].flow)
        carried = torch.cat([backward_warp(last, forward), backward_warp(first, backward)])
        pair = torch.cat([first, last])
        importance = _IMPORTANCE * (rgb_to_lab(pair) - rgb_to_lab(carried.clamp(-1, 1))).norm(dim=1, keepdim=True)
        return {
            **state,
            "flows": torch.cat([forward, backward]),
            "source": torch.cat([pair, features], 1),
            "importance": importance.detach(),
            "carried": carried,
            "ends": pair,
        }

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,)."""
        fraction = torch.cat([t, 1 - t]).to(state["flows"].dtype).view(-1, 1, 1, 1)
        splatted, weight_sum = forward_splat(state["source"], fraction * state["flows"], state["importance"])
        covered = opened(weight_sum.clamp(0, 1))
        early, late = splatted[:, :3].chunk(2)
        mixed = blend(state["first"], state["last"], t)
        weight = (1 - fraction) * covered  # 1 - t for the first frame, t for the last
        w0, w1 = weight.chunk(2)
        total = w0 + w1
        filled = (w0 * early + w1 * late) / total.clamp_min(1e-6)
        merged = torch.where(total > 1e-6, filled, mixed)
        coverage = torch.cat(covered.chunk(2), 1)
        inputs = torch.cat([*splatted.chunk(2), coverage, merged], 1)
        image = merged + bump(t, merged) * self.refine(inputs, t)
        extra = {"merged": merged, "coverage": coverage, "carried": state["carried"], "ends": state["ends"]}
        return InbetweenOutput(image, extra)


def opened(mask: Tensor, side: int = 5) -> Tensor:
    """Return the morphological opening of masks (B,1,H,W) by a square, which removes smaller specks (EISAI)."""
    shrunk = -F.max_pool2d(-mask, side, stride=1, padding=side // 2)
    return F.max_pool2d(shrunk, side, stride=1, padding=side // 2)
