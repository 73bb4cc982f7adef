"""Moving pixels backwards: coarse-to-fine flow from the frame between to both ends (RIFE, Huang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.interpolation.networks.base import Drawn, InbetweenNetwork, as_map, bump, silent
from animegen.models.interpolation.networks.unet import UNet
from animegen.nn.conv import scale_channels
from animegen.nn.warp import backward_warp

_EDGE = 1e-4  # times this near to an end count as the end; the logit of 0 would be infinite


class FlowBlock(nn.Module):
    """One stage of the pyramid: at 1/(4 scale) of the size it corrects what it is shown, and begins with no correction.

    Two convolutions of stride 2, ``depth`` more with a shortcut round them, one transposed convolution; PReLU.

    Args:
        inputs: channels in, the last four of them a flow (in pixels).
        outputs: channels out, the first four of them a flow.
        width: channels inside.
        scale: the input is made so many times smaller first; a stage of scale s corrects motion of about 8 s pixels.
        depth: convolutions at the coarse size.
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
        self.up = silent(nn.ConvTranspose2d(width, outputs, 4, 2, 1))

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


class Moved(NamedTuple):
    """Both frames moved to time t.

    Attributes:
        merged: (B,3,H,W), the two put together.
        first, last: (B,3,H,W), each frame as it would look at t.
        flow: (B,4,H,W) in pixels, from t to the first and to the last frame.
        mask: (B,1,H,W) in (0,1), the share of the first frame.
    """

    merged: Tensor
    first: Tensor
    last: Tensor
    flow: Tensor
    mask: Tensor


class FlowPyramid(nn.Module):
    """Flow from time t to both frames, coarse to fine, and the mask that puts the moved frames together.

    Each stage sees the frames, the frames as they are moved so far, and a few learned features of both. The flows are
    t and 1 - t times what the stages add up, and the mask begins at 1 - t: so it starts as the cross-fade exactly,
    and at t = 0 and t = 1 it gives the frame itself.

    Args:
        scales: of the stages, coarse to fine.
        widths: channels of the stages at width 1.
        features: channels of the learned features.
        depth: convolutions per stage.
        width: factor on the channel counts of the stages.
        guide: channels of a picture that tells something of the frame at t, and that every stage sees; 0 for none.
    """

    def __init__(
        self,
        scales: Sequence[int] = (4, 2, 1),
        widths: Sequence[int] = (240, 150, 90),
        features: int = 8,
        depth: int = 8,
        width: float = 1.0,
        guide: int = 0,
    ) -> None:
        super().__init__()
        if len(scales) != len(widths) or not scales:
            raise AnimegenError(f"The flow pyramid needs a width per scale, not scales={scales} and widths={widths}.")
        self.factor = 4 * max(scales)
        self.stem = nn.Sequential(
            nn.Conv2d(3, features, 3, 1, 1), nn.PReLU(features), nn.Conv2d(features, features, 3, 1, 1)
        )
        # Frames, features, time, guide, and the flow; later stages also see what is moved so far, and the mask.
        first = 2 * (3 + features) + 1 + guide + 4
        later = first + 2 * (3 + features) + 1
        self.stages = nn.ModuleList(
            FlowBlock(later if number else first, 5, scale_channels(channels, width), scale, depth)
            for number, (scale, channels) in enumerate(zip(scales, widths, strict=True))
        )

    def encode(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames and their features, (B,3+features,H,W) each: what does not depend on the time."""
        pair = torch.cat([first, last])
        both = torch.cat([pair, self.stem(pair)], 1)
        first, last = both.chunk(2)
        return first, last

    def forward(self, encoded: tuple[Tensor, Tensor], t: Tensor, guide: Tensor | None = None) -> Moved:
        """Move an encoded pair to the times ``t`` (B,); ``guide`` (B,guide,H,W)."""
        first, last = encoded
        time = as_map(t, first)
        flow, logit = first.new_zeros(len(first), 4, *first.shape[-2:]), torch.zeros_like(time)
        # Pixels of the frame at t come from t times the whole way before, and 1 - t times the way ahead.
        way = torch.cat([time, time, 1 - time, 1 - time], 1)
        prior = torch.logit((1 - time).clamp(_EDGE, 1 - _EDGE))
        known = [first, last, time] if guide is None else [first, last, time, guide]
        seen = known
        for number, stage in enumerate(self.stages):
            if number:
                moved = [backward_warp(frame, f) for frame, f in zip((first, last), flow.split(2, 1), strict=True)]
                seen = [*known, *moved, torch.sigmoid(logit + prior)]
            change = stage(torch.cat(seen, 1), flow)
            flow, logit = flow + way * change[:, :4], logit + change[:, 4:]
        to_first, to_last = flow.split(2, 1)
        early, late = backward_warp(first[:, :3], to_first), backward_warp(last[:, :3], to_last)
        mask = torch.sigmoid(logit + prior)
        # Where the time is an end, that end counts alone whatever the mask has learned.
        mask = torch.where(time <= _EDGE, 1.0, torch.where(time >= 1 - _EDGE, 0.0, mask))
        return Moved(mask * early + (1 - mask) * late, early, late, flow, mask)


class IFNet(InbetweenNetwork):
    """Backward warping with a refining U-Net behind it.

    With a ``guide`` it is told what the frame between looks like, roughly, and has to find out from where in the two
    frames each pixel of it comes: the teacher of RIFE is one such, and the renderer of GANime
    (:class:`~animegen.models.ganime.Ganime`) another.

    Extra values: ``flow`` (B,4,H,W), ``mask`` (B,1,H,W), ``merged`` (B,3,H,W): what the flow alone makes of it.

    ``scales``, ``widths``, ``features`` and ``depth`` are those of :class:`FlowPyramid`.

    Args:
        refine: channels of the refining U-Net's levels at width 1; empty for none.
        width: factor on all channel counts.
        guide: channels of the guide; 0 for none.
    """

    def __init__(
        self,
        scales: Sequence[int] = (8, 4, 2, 1),
        widths: Sequence[int] = (192, 128, 64, 48),
        features: int = 8,
        depth: int = 6,
        refine: Sequence[int] = (32, 64, 128, 256),
        width: float = 1.0,
        guide: int = 0,
    ) -> None:
        super().__init__()
        self.pyramid = FlowPyramid(scales, widths, features, depth, width, guide)
        self.refine = None
        if refine:
            # The frames, as they are and moved, with their features; flow and mask; guide.
            self.refine = UNet(2 * (3 + features) + 6 + 5 + guide, 3, [scale_channels(c, width) for c in refine])
        self.factor = max(self.pyramid.factor, self.refine.factor if self.refine else 1)

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        """Compute the features of both frames."""
        return {**super().encode_pair(first, last), "encoded": self.pyramid.encode(first, last)}

    def forward(self, first: Tensor, last: Tensor, t: Tensor, guide: Tensor | None = None) -> Drawn:
        """Draw the frames at time ``t`` (B,) between ``first`` and ``last`` (B,3,H,W)."""
        return self.synthesize(self.encode_pair(first, last), t, guide)

    def synthesize(self, state: dict[str, Any], t: Tensor, guide: Tensor | None = None) -> Drawn:
        """Draw the frames at time ``t`` (B,), with a ``guide`` (B,guide,H,W) where the network has one."""
        moved = self.pyramid(state["encoded"], t, guide)
        image = moved.merged
        if self.refine is not None:
            size = moved.flow.new_tensor(20.0)  # pixels: brings flows to the range of pictures
            seen = [*state["encoded"], moved.first, moved.last, moved.flow / size, moved.mask]
            if guide is not None:
                seen.append(guide)
            image = image + bump(t, image) * self.refine(torch.cat(seen, 1), t)
        return Drawn(image, {"flow": moved.flow, "mask": moved.mask, "merged": moved.merged})
