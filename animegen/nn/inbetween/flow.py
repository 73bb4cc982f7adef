"""Backward warping along a coarse-to-fine intermediate flow (RIFE, Huang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.conv import scale_channels
from animegen.nn.inbetween.base import InbetweenOutput, bump, time_map, zero_init
from animegen.nn.inbetween.prior import FlowPrior, PriorNetwork, flow_at, weight_ratio
from animegen.nn.inbetween.trajectories import lead_of_average
from animegen.nn.inbetween.unet import UNet
from animegen.nn.warp import backward_warp

#: Times within this distance of 0 or 1 are treated as 0 or 1, where the logit would be infinite.
_EDGE = 1e-4


class FlowBlock(nn.Module):
    """One stage of the pyramid: predicts a correction at 1/(4 scale) of the resolution, initially 0.

    Two convolutions of stride 2, ``depth`` convolutions with a residual connection, one transposed convolution; PReLU.

    Args:
        inputs: input channels; the last four are a flow in pixels.
        outputs: output channels; the first four are a flow in pixels.
        width: hidden channels.
        scale: factor by which the input is downscaled first. A stage of scale s corrects motion of about 8 s pixels.
        depth: convolutions at the lowest resolution.
    """

    def __init__(self, inputs: int, outputs: int, width: int, scale: int, depth: int = 4) -> None:
        super().__init__()
        self.scale = scale
        half = max(width // 2, 4)
        self.down = nn.Sequential(
            nn.Conv2d(inputs, half, 3, 2, 1), nn.PReLU(half), nn.Conv2d(half, width, 3, 2, 1), nn.PReLU(width)
        )
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)]
        self.middle = nn.Sequential(*layers)
        self.up = zero_init(nn.ConvTranspose2d(width, outputs, 4, 2, 1))

    def forward(self, x: Tensor, flow: Tensor) -> Tensor:
        """Map (B,inputs-4,H,W) and flow (B,4,H,W) to corrections (B,outputs,H,W); H, W multiples of 4 scale."""
        size = x.shape[-2:]
        if self.scale > 1:
            smaller: dict[str, Any] = {"scale_factor": 1 / self.scale, "mode": "bilinear", "align_corners": False}
            x = F.interpolate(x, **smaller)
            flow = F.interpolate(flow, **smaller) / self.scale
        y = self.down(torch.cat([x, flow], 1))
        y = self.up(self.middle(y) + y)
        y = F.interpolate(y, size, mode="bilinear", align_corners=False)
        return torch.cat([y[:, :4] * (2 * self.scale), y[:, 4:]], 1)


class WarpedPair(NamedTuple):
    """Both frames warped to time t.

    Attributes:
        merged: (B,3,H,W), the weighted sum of the two; with a prior, more.
        first: (B,3,H,W), the first frame warped to t.
        last: (B,3,H,W), the last frame warped to t.
        flow: (B,4,H,W) in pixels, from t to the first and to the last frame.
        mask: (B,1,H,W) in [0,1], the weight of the first frame.
    """

    merged: Tensor
    first: Tensor
    last: Tensor
    flow: Tensor
    mask: Tensor


class FlowPyramid(nn.Module):
    """Coarse-to-fine flow from time t to both frames, and the mask that merges the warped frames.

    The input of each stage is both frames, both frames warped by the flow so far, and learned features of both. The
    sum of the stages' corrections is scaled by t and 1 - t, and the mask starts at 1 - t. So the output before
    training is the cross-fade, and at t = 0 and t = 1 it always equals the given frame.

    Args:
        scales: scale of each stage, coarse to fine, see :class:`FlowBlock`.
        widths: channels of each stage at width 1.
        features: channels of the learned features.
        depth: convolutions per stage.
        width: factor on the channel counts of the stages.
        guide: channels of a guide, an estimate of the frame at t that every stage reads; 0 for none.
        prior: the flow starts from a given one, and the first stage reads the frames warped along it. The output before
            training is then the average along all trajectories of the prior.

    Raises:
        AnimegenError: if there is not one width per scale.
    """

    def __init__(
        self,
        scales: Sequence[int] = (4, 2, 1),
        widths: Sequence[int] = (240, 150, 90),
        features: int = 8,
        depth: int = 8,
        width: float = 1.0,
        guide: int = 0,
        prior: bool = False,
    ) -> None:
        super().__init__()
        if len(scales) != len(widths) or not scales:
            raise AnimegenError(f"The flow pyramid needs a width per scale, not scales={scales} and widths={widths}.")
        self.size_divisor, self.prior = 4 * max(scales), prior
        self.stem = nn.Sequential(
            nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features), nn.Conv2d(features, features, 3, 1, 1)
        )
        # Frames, features, time, guide and flow; later stages also read the warped frames and the mask.
        first = 2 * (3 + features) + 1 + guide + 4
        later = first + 2 * (3 + features) + 1
        self.stages = nn.ModuleList(
            FlowBlock(later if number or prior else first, 5, scale_channels(channels, width), scale, depth)
            for number, (scale, channels) in enumerate(zip(scales, widths, strict=True))
        )

    def encode(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Concatenate each frame with its features, (B,3+features,H,W) each. This does not depend on the time."""
        pair = torch.cat([first, last])
        both = torch.cat([pair, self.stem(pair)], 1)
        first, last = both.chunk(2)
        return first, last

    def forward(
        self,
        encoded: tuple[Tensor, Tensor],
        t: Tensor,
        guide: Tensor | None = None,
        prior: FlowPrior | None = None,
        start: Tensor | None = None,
    ) -> WarpedPair:
        """Warp a pair from :meth:`encode` to the times ``t`` (B,).

        Args:
            encoded: both frames with their features.
            t: (B,) in [0,1].
            guide: (B,guide,H,W).
            prior: of the pair, if the pyramid reads one.
            start: (B,5,H,W), takes the place of the first stage: as its output, flow in pixels for the whole time
                between the frames, and a logit.
        """
        first, last = encoded
        time = time_map(t, first)
        flow, logit = first.new_zeros(len(first), 4, *first.shape[-2:]), torch.zeros_like(time)
        if prior is not None:
            flow, logit = flow_at(prior.flow, t), weight_ratio(prior.confidence).log()
        if start is not None:
            logit = start[:, 4:].to(time.dtype)
        # A pixel of the frame at t has moved t of the total motion since the first frame; 1 - t remains to the last.
        fraction = torch.cat([time, time, 1 - time, 1 - time], 1)
        if start is not None:
            flow = fraction * start[:, :4].to(fraction.dtype)
        usual = torch.logit((1 - time).clamp(_EDGE, 1 - _EDGE))
        known = [first, last, time] if guide is None else [first, last, time, guide]
        inputs = known
        for number, stage in enumerate(self.stages):
            if number == 0 and start is not None:
                continue
            if number or self.prior:
                warped = [backward_warp(frame, f) for frame, f in zip((first, last), flow.split(2, 1), strict=True)]
                inputs = [*known, *warped, torch.sigmoid(logit + usual)]
            change = stage(torch.cat(inputs, 1), flow)
            flow, logit = flow + fraction * change[:, :4], logit + change[:, 4:]
        to_first, to_last = flow.split(2, 1)
        early, late = backward_warp(first[:, :3], to_first), backward_warp(last[:, :3], to_last)
        mask = torch.sigmoid(logit + usual)
        # At t = 0 and t = 1 only the given frame counts, whatever the mask has learned.
        mask = torch.where(time <= _EDGE, 1.0, torch.where(time >= 1 - _EDGE, 0.0, mask))
        merged = mask * early + (1 - mask) * late
        if prior is not None and prior.estimates:
            merged = merged + lead_of_average(first[:, :3], last[:, :3], prior, t, "bilinear").to(merged.dtype)
        return WarpedPair(merged, early, late, flow, mask)


class IFNet(PriorNetwork):
    """Backward warping of both frames, refined by a U-Net.

    With a ``guide``, an approximate image of the frame at t, the network only has to find where in the two frames each
    pixel of it comes from. The teacher of RIFE is such a network; GANime uses one as its renderer.

    Extra values: ``flow`` (B,4,H,W), ``mask`` (B,1,H,W), and ``merged`` (B,3,H,W), the result before refinement.

    Args:
        scales: scales of the flow, see :class:`FlowPyramid`.
        widths: channels of its stages at width 1.
        features: channels of its learned features.
        depth: convolutions per stage.
        refine: channels of the levels of the refinement U-Net at width 1; empty for no refinement.
        refine_scale: 2 refines at half the resolution, as RIFE does, in half the time; 1 at full resolution.
        width: factor on all channel counts.
        guide: channels of the guide; 0 for none.
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
        refine_scale: int = 1,
        width: float = 1.0,
        guide: int = 0,
        prior: str = "none",
        prior_dropout: float = 0.1,
    ) -> None:
        super().__init__(prior, prior_dropout)
        #: Channels of the guide.
        self.guide = guide
        self.pyramid = FlowPyramid(scales, widths, features, depth, width, guide, prior != "none")
        self.refine = None
        if refine:
            # Both frames with their features, both warped frames, flow and mask, guide.
            inputs = 2 * (3 + features) + 6 + 5 + guide
            self.refine = UNet(inputs, 3, [scale_channels(c, width) for c in refine], scale=refine_scale)
        self.size_divisor = max(self.pyramid.size_divisor, self.refine.size_divisor if self.refine else 1)

    def encode_pair(self, first: Tensor, last: Tensor, *prior: Tensor | None, **named: Tensor | None) -> dict[str, Any]:
        """Compute the features of both frames; the rest depends on the time."""
        return {**super().encode_pair(first, last, *prior, **named), "encoded": self.pyramid.encode(first, last)}

    def forward(
        self, first: Tensor, last: Tensor, t: Tensor, guide: Tensor | None = None, start: Tensor | None = None
    ) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,) between ``first`` and ``last`` (B,3,H,W); see :meth:`synthesize`."""
        return self.synthesize(self.encode_pair(first, last), t, guide, start)

    def synthesize(
        self, state: dict[str, Any], t: Tensor, guide: Tensor | None = None, start: Tensor | None = None
    ) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,).

        Args:
            state: from :meth:`encode_pair`.
            t: (B,).
            guide: (B,guide,H,W) for a network that has one.
            start: (B,5,H,W), see :meth:`FlowPyramid.forward`.
        """
        prior = state["prior"] if self.pyramid.prior else None
        warped = self.pyramid(state["encoded"], t, guide, prior, start)
        image = warped.merged
        if self.refine is not None:
            scale = warped.flow.new_tensor(20.0)  # pixels: brings flows to about the range of images
            inputs = [*state["encoded"], warped.first, warped.last, warped.flow / scale, warped.mask]
            if guide is not None:
                inputs.append(guide)
            image = image + bump(t, image) * self.refine(torch.cat(inputs, 1), t)
        return InbetweenOutput(image, {"flow": warped.flow, "mask": warped.mask, "merged": warped.merged})
