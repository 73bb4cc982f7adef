"""Moving pixels forwards: both frames are thrown to time t and put together (Niklaus and Liu 2020; EISAI 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.interpolation.networks.base import Drawn, InbetweenNetwork, blend, bump
from animegen.models.interpolation.networks.flow import FlowBlock
from animegen.models.interpolation.networks.unet import UNet
from animegen.nn.colour import rgb_to_lab
from animegen.nn.conv import scale_channels
from animegen.nn.warp import backward_warp, forward_splat

_IMPORTANCE = -0.1
"""Weight of the CIE Lab distance by which a pixel finds itself in the other frame (EISAI): what fits lies in front."""


class PairFlow(nn.Module):
    """Flow between the two frames, both ways, coarse to fine; it does not depend on the time and begins at 0.

    It takes the arguments of :class:`~animegen.models.interpolation.networks.flow.FlowPyramid`.
    """

    def __init__(
        self, scales: Sequence[int], widths: Sequence[int], features: int = 8, depth: int = 6, width: float = 1.0
    ) -> None:
        super().__init__()
        self.factor = 4 * max(scales)
        self.stem = nn.Sequential(
            nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features), nn.Conv2d(features, features, 3, 1, 1)
        )
        inputs = 4 * (3 + features) + 4
        self.stages = nn.ModuleList(
            FlowBlock(inputs, 4, scale_channels(channels, width), scale, depth)
            for scale, channels in zip(scales, widths, strict=True)
        )

    def forward(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return flow first to last and last to first (B,2,H,W) in pixels, and features (2B,features,H,W) of both."""
        pair = torch.cat([first, last])
        features = self.stem(pair)
        a, b = torch.cat([pair, features], 1).chunk(2)
        flow = first.new_zeros(len(first), 4, *first.shape[-2:])
        for stage in self.stages:
            there, back = flow.split(2, 1)
            seen = torch.cat([a, b, backward_warp(b, there), backward_warp(a, back)], 1)
            flow = flow + stage(seen, flow)
        there, back = flow.split(2, 1)
        return there, back, features


class SoftSplatLite(InbetweenNetwork):
    """Forward warping: pixels are thrown along t and 1 - t of their way; a U-Net mends what is left.

    The flows are found once per pair. Where several pixels land, those that fit the other frame lie in front. Holes of
    one thrown frame are filled from the other, holes of both from the blend. At t = 0 and 1 it gives the frame itself.

    Extra values: ``carried`` (2B,3,H,W), each frame as seen through the flow in the other's place, and ``ends``, what
    it should equal; ``merged`` (B,3,H,W), before the U-Net; ``coverage`` (B,2,H,W), where something landed.

    ``scales``, ``widths``, ``features`` and ``depth`` are those of the flow.

    Args:
        refine: channels of the U-Net's levels at width 1.
        width: factor on all channel counts.
    """

    def __init__(
        self,
        scales: Sequence[int] = (8, 4, 2, 1),
        widths: Sequence[int] = (192, 128, 64, 48),
        features: int = 8,
        depth: int = 6,
        refine: Sequence[int] = (32, 64, 128, 256),
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.flow = PairFlow(scales, widths, features, depth, width)
        # Both frames thrown with their features, their coverage, and what they were merged to.
        self.refine = UNet(2 * (3 + features) + 2 + 3, 3, [scale_channels(c, width) for c in refine])
        self.factor = max(self.flow.factor, self.refine.factor)

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        """Find the motion between the frames, and which pixels lie in front."""
        state = super().encode_pair(first, last)
        there, back, features = self.flow(first, last)
        carried = torch.cat([backward_warp(last, there), backward_warp(first, back)])
        pair = torch.cat([first, last])
        importance = _IMPORTANCE * (rgb_to_lab(pair) - rgb_to_lab(carried.clamp(-1, 1))).norm(dim=1, keepdim=True)
        return {
            **state,
            "flows": torch.cat([there, back]),
            "thrown": torch.cat([pair, features], 1),
            "importance": importance.detach(),
            "carried": carried,
            "ends": pair,
        }

    def synthesize(self, state: dict[str, Any], t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,)."""
        share = torch.cat([t, 1 - t]).to(state["flows"].dtype).view(-1, 1, 1, 1)
        thrown, landed = forward_splat(state["thrown"], share * state["flows"], state["importance"])
        covered = opened(landed.clamp(0, 1))
        early, late = thrown[:, :3].chunk(2)
        mixed = blend(state["first"], state["last"], t)
        weight = (1 - share) * covered  # 1 - t for the first frame, t for the last
        w0, w1 = weight.chunk(2)
        total = w0 + w1
        filled = (w0 * early + w1 * late) / total.clamp_min(1e-6)
        merged = torch.where(total > 1e-6, filled, mixed)
        coverage = torch.cat(covered.chunk(2), 1)
        seen = torch.cat([*thrown.chunk(2), coverage, merged], 1)
        image = merged + bump(t, merged) * self.refine(seen, t)
        extra = {"merged": merged, "coverage": coverage, "carried": state["carried"], "ends": state["ends"]}
        return Drawn(image, extra)


def opened(mask: Tensor, side: int = 5) -> Tensor:
    """Return the morphological opening of masks (B,1,H,W) by a square: specks smaller than it vanish (EISAI)."""
    shrunk = -F.max_pool2d(-mask, side, stride=1, padding=side // 2)
    return F.max_pool2d(shrunk, side, stride=1, padding=side // 2)
