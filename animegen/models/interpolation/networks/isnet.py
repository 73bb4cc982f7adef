"""IS-Net (Qin et al. 2022), nested U blocks (RSU) with six supervised side outputs, as an interpolation network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import scale_channels
from animegen.nn.inbetween.base import (
    InbetweenNetwork,
    InbetweenOutput,
    blend,
    bump,
    group_norm,
    time_map,
    zero_init,
)


class _Conv(nn.Sequential):
    """3x3 convolution, group norm, ReLU. The original has batch norm, which is unreliable with small batches."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, padding=dilation, dilation=dilation),
            group_norm(outputs),
            nn.ReLU(inplace=True),
        )


class RSU(nn.Module):
    """Residual U block ("RSU-L"): a small U-Net with a residual connection.

    Args:
        height: convolutions of the encoder; ``height - 2`` poolings, and a dilated convolution at the bottom.
        inputs: input channels.
        middle: hidden channels.
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
            y = layer(_downsampled(y) if number else y)
            skips.append(y)
        y = self.bottom(y)
        for layer in reversed(self.up):
            skip = skips.pop()
            y = layer(torch.cat([_resized(y, skip), skip], 1))
        return y + shortcut


class RSU4F(nn.Module):
    """RSU with dilations 1, 2, 4, 8 instead of pooling, for small maps.

    Args:
        inputs: input channels.
        middle: hidden channels.
        outputs: output channels.
    """

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


def _downsampled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


class ISNet(InbetweenNetwork):
    """IS-Net's encoder and decoder as a frame interpolation network.

    The input is both frames and the time. The stem halves the resolution, so each side output is upsampled by 2 (pixel
    shuffle), which keeps lines sharp. Side output 1 has full resolution and predicts the difference to the cross-fade,
    initially 0. The other ones predict the frame at 1/2, 1/4, ... of the resolution and are used in training only.

    Extra values: ``sides``, five images (B,3,h,w), fine to coarse; with ``stages`` the feature maps (B,C,h,w) of the
    six stages, coarse to fine; with ``lines`` ``line_logits`` (B,1,H,W), a predicted mask of the lines of the frame.

    Args:
        lines: also predict a mask of the lines (see :class:`animegen.losses.Structure`).
        stages: return the feature maps (see :class:`animegen.losses.FeatureSync` and :class:`TruthEncoder`).
        width: factor on all channel counts; 1 is the published network.
    """

    size_divisor = 2

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
        #: Channels of the feature maps of the six stages, coarse to fine.
        self.channels = (c512, c512, c256, c128, c64, c64)
        counts = [4 * 3] * 5 + [4 * (3 + int(lines))]
        self.sides = nn.ModuleList(
            zero_init(nn.Conv2d(channels, count, 3, padding=1))
            for channels, count in zip(self.channels, counts, strict=True)
        )
        self.lines, self.stages = lines, stages

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,)."""
        first, last = state["first"], state["last"]
        x = self.stem(torch.cat([first, last, time_map(t, first)], 1))
        skips: list[Tensor] = []
        for number, stage in enumerate(self.encoder):
            x = stage(_downsampled(x) if number else x)
            skips.append(x)
        x = skips.pop()
        stages = [x]
        for stage in self.decoder:
            skip = skips.pop()
            x = stage(torch.cat([_resized(x, skip), skip], 1))
            stages.append(x)
        outputs = [F.pixel_shuffle(side(x), 2) for side, x in zip(self.sides, stages, strict=True)]
        mixed = blend(first, last, t)
        fine = outputs.pop()
        extra: dict[str, Any] = {
            "sides": [side + F.interpolate(mixed, side.shape[-2:], mode="area") for side in reversed(outputs)],
        }
        if self.stages:
            extra["stages"] = stages
        if self.lines:
            extra["line_logits"] = fine[:, 3:]
        return InbetweenOutput(mixed + bump(t, fine) * fine[:, :3], extra)


class TruthEncoder(nn.Module):
    """Autoencoder of RSU blocks on the ground truth (IS-Net), whose feature maps supervise those of :class:`ISNet`.

    Args:
        channels: channels of the six stages, coarse to fine, as :attr:`ISNet.channels`; ``None`` for those of an
            ``ISNet`` of the same width.
        width: factor on the hidden channels.
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
        """Map images (B,3,H,W) to the feature maps of the stages, coarse to fine, and their reconstructions."""
        x = self.stem(images)
        stages: list[Tensor] = []
        for number, stage in enumerate(self.encoder):
            x = stage(_downsampled(x) if number else x)
            stages.insert(0, x)
        return stages, [F.pixel_shuffle(side(x), 2) for side, x in zip(self.sides, stages, strict=True)]
