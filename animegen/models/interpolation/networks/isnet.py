"""IS-Net (Qin et al. 2022): nested U blocks (RSU), six supervised sides; here it draws in-betweens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.interpolation.networks.base import (
    Drawn,
    InbetweenNetwork,
    as_map,
    blend,
    bump,
    group_norm,
    silent,
)
from animegen.nn.conv import scale_channels


class _Conv(nn.Sequential):
    """3x3 convolution, norm, ReLU. Group norm where the original has batch norm, which small batches spoil."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation),
            group_norm(outputs),
            nn.ReLU(inplace=True),
        )


class RSU(nn.Module):
    """Residual U block of the given height: a small U-Net with a shortcut round it ("RSU-L").

    Args:
        height: convolutions on the way down: ``height - 2`` times pooled, the last one dilated instead.
        inputs: input channels.
        middle: channels inside.
        outputs: output channels.
    """

    def __init__(self, height: int, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.first = _Conv(inputs, outputs)
        self.down = nn.ModuleList(_Conv(outputs if n == 0 else middle, middle) for n in range(height - 1))
        self.bottom = _Conv(middle, middle, dilation=2)
        self.up = nn.ModuleList(_Conv(2 * middle, outputs if n == 0 else middle) for n in range(height - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H,W)."""
        shortcut = y = self.first(x)
        skips: list[Tensor] = []
        for number, layer in enumerate(self.down):
            y = layer(_halved(y) if number else y)
            skips.append(y)
        y = self.bottom(y)
        for layer in reversed(self.up):
            skip = skips.pop()
            y = layer(torch.cat([_sized(y, skip), skip], 1))
        return y + shortcut


class RSU4F(nn.Module):
    """The same with dilations 1, 2, 4, 8 in place of pooling, for maps that are small already."""

    def __init__(self, inputs: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.first = _Conv(inputs, outputs)
        self.down = nn.ModuleList(_Conv(outputs if d == 1 else middle, middle, dilation=d) for d in (1, 2, 4))
        self.bottom = _Conv(middle, middle, dilation=8)
        self.up = nn.ModuleList(_Conv(2 * middle, outputs if d == 1 else middle, dilation=d) for d in (1, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H,W)."""
        shortcut = y = self.first(x)
        skips: list[Tensor] = []
        for layer in self.down:
            y = layer(y)
            skips.append(y)
        y = self.bottom(y)
        for layer in reversed(self.up):
            y = layer(torch.cat([y, skips.pop()], 1))
        return y + shortcut


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _sized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ISNet(InbetweenNetwork):
    """IS-Net's encoder and decoder as an in-betweener.

    It sees both frames and the time. The stem halves the picture, so each side draws twice as many pixels as
    it has (pixel shuffle), else lines would be soft. Side 1, at full size, draws the frame: what differs from the
    blend, beginning with nothing; the others draw the frame at 1/2, 1/4 ... of the size and are for training.

    Extra values: ``sides``, five pictures (B,3,h,w), coarser and coarser; with ``stages`` the maps (B,C,h,w) of the six
    stages, coarse to fine; with ``lines`` ``line_logits`` (B,1,H,W): where the frame's lines will be.

    Args:
        lines: also draw a mask of the lines (see `animegen.losses.Structure`).
        stages: hand out the stages' maps (see `animegen.losses.FeatureSync` and :class:`TruthEncoder`).
        width: factor on all channel counts; 1 is the published network.
    """

    factor = 2

    def __init__(self, lines: bool = False, stages: bool = False, width: float = 1.0) -> None:
        super().__init__()
        c16, c32, c64, c128, c256, c512 = (scale_channels(c, width) for c in (16, 32, 64, 128, 256, 512))
        self.stem = nn.Conv2d(7, c64, 3, stride=2, padding=1)
        self.encoder = nn.ModuleList(
            [
                RSU(7, c64, c32, c64),
                RSU(6, c64, c32, c128),
                RSU(5, c128, c64, c256),
                RSU(4, c256, c128, c512),
                RSU4F(c512, c256, c512),
                RSU4F(c512, c256, c512),
            ]
        )
        self.decoder = nn.ModuleList(
            [
                RSU4F(2 * c512, c256, c512),
                RSU(4, 2 * c512, c128, c256),
                RSU(5, 2 * c256, c64, c128),
                RSU(6, 2 * c128, c32, c64),
                RSU(7, 2 * c64, c16, c64),
            ]
        )
        #: Channels of the six stages, coarse to fine.
        self.channels = (c512, c512, c256, c128, c64, c64)
        outputs = 3 + int(lines)
        counts = [4 * (outputs if n == 5 else 3) for n in range(6)]
        self.sides = nn.ModuleList(
            silent(nn.Conv2d(channels, count, 3, padding=1))
            for channels, count in zip(self.channels, counts, strict=True)
        )
        self.lines, self.stages = lines, stages

    def synthesize(self, state: dict[str, Any], t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,)."""
        first, last = state["first"], state["last"]
        x = self.stem(torch.cat([first, last, as_map(t, first)], 1))
        skips: list[Tensor] = []
        for number, stage in enumerate(self.encoder):
            x = stage(_halved(x) if number else x)
            skips.append(x)
        x = skips.pop()
        stages = [x]
        for stage in self.decoder:
            skip = skips.pop()
            x = stage(torch.cat([_sized(x, skip), skip], 1))
            stages.append(x)
        drawn = [F.pixel_shuffle(side(x), 2) for side, x in zip(self.sides, stages, strict=True)]
        mixed = blend(first, last, t)
        fine = drawn.pop()
        extra: dict[str, Any] = {
            "sides": [d + F.interpolate(mixed, d.shape[-2:], mode="area") for d in reversed(drawn)],
        }
        if self.stages:
            extra["stages"] = stages
        if self.lines:
            extra["line_logits"] = fine[:, 3:]
        return Drawn(mixed + bump(t, fine) * fine[:, :3], extra)


class TruthEncoder(nn.Module):
    """IS-Net's encoder of the truth: a small autoencoder of RSU blocks whose stages the other network shall resemble.

    Args:
        channels: of the six stages, coarse to fine, as :attr:`ISNet.channels`.
        width: factor on the channels inside.
    """

    def __init__(self, channels: tuple[int, ...] | list[int] | None = None, width: float = 1.0) -> None:
        super().__init__()
        c16, c32, c64, c128, c256 = (scale_channels(c, width) for c in (16, 32, 64, 128, 256))
        if channels is None:
            channels = [scale_channels(c, width) for c in (512, 512, 256, 128, 64, 64)]
        six, five, four, three, two, one = channels
        self.stem = nn.Conv2d(3, c16, 3, stride=2, padding=1)
        self.encoder = nn.ModuleList(
            [
                RSU(7, c16, c16, one),
                RSU(6, one, c16, two),
                RSU(5, two, c32, three),
                RSU(4, three, c64, four),
                RSU4F(four, c128, five),
                RSU4F(five, c256, six),
            ]
        )
        self.sides = nn.ModuleList(nn.Conv2d(c, 12, 3, padding=1) for c in channels)

    def forward(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Map images (B,3,H,W) to the stages' maps, coarse to fine, and the pictures that the sides make of them."""
        x = self.stem(images)
        stages: list[Tensor] = []
        for number, stage in enumerate(self.encoder):
            x = stage(_halved(x) if number else x)
            stages.insert(0, x)
        return stages, [F.pixel_shuffle(side(x), 2) for side, x in zip(self.sides, stages, strict=True)]
