"""A small residual U-Net for training on CPUs; not from a paper."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import SLOPE, ReflectConv, Upsample, initialise, require_multiple, scale_channels
from animegen.nn.norm import make_norm
from animegen.nn.output import OutputActivation

#: Channels at full resolution, independent of the width.
DETAIL = 16


class CompactUNet(nn.Module):
    """A U-Net of residual blocks with little computation at full resolution.

    On CPUs, layers at full resolution with few channels are slow and use the processor poorly. Most computation is
    therefore in plain 3x3 convolutions at 1/2, 1/4 and 1/8 of the resolution. Only two thin layers at the end run at
    full resolution, with fine detail directly from the photo. Upsampling is bilinear: pixel shuffle produced grid
    artefacts of two pixels in adversarial training.

    Args:
        width: factor on the channels (64, 128 and 256 at width 1; 2,141,955 parameters).
        blocks: residual blocks per resolution and direction.
        norm: norm of the residual blocks, see :func:`~animegen.nn.norm.make_norm`.
        output: see :class:`~animegen.nn.output.OutputActivation`.
        shortcut: add the photo to the output, before its activation, and begin as this shortcut. Without an activation
            (``output=linear``) the untrained network returns the photo.
    """

    size_divisor = 8

    def __init__(
        self,
        width: float = 1.0,
        blocks: int = 1,
        norm: str | None = "layer",
        output: str = "tanh",
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        c1, c2, c3 = (scale_channels(channels, width) for channels in (64, 128, 256))
        self.stem = ReflectConv(3, c1, 6, stride=2, bias=True)
        self.encode1, self.down1 = _stage(c1, blocks, norm), ReflectConv(c1, c2, 2, stride=2, bias=True)
        self.encode2, self.down2 = _stage(c2, blocks, norm), ReflectConv(c2, c3, 2, stride=2, bias=True)
        self.middle = _stage(c3, blocks, norm)
        self.up2, self.decode2 = ReflectConv(c3, c2, 1, bias=True), _stage(c2, blocks, norm)
        self.up1, self.decode1 = ReflectConv(c2, c1, 1, bias=True), _stage(c1, blocks, norm)
        self.head, self.detail = ReflectConv(c1, DETAIL, 3, bias=True), ReflectConv(3, DETAIL, 3, bias=True)
        self.last = ReflectConv(DETAIL, 3, 3, bias=True)
        self.upsample, self.output, self.shortcut = Upsample("bilinear"), OutputActivation(output), shortcut
        initialise(self, "he")
        for block in self.modules():
            if isinstance(block, ResidualBlock):
                nn.init.zeros_(block.second.weight)  # every block starts as the identity
        if shortcut:
            nn.init.zeros_(self.last.weight)

    def forward(self, photo: Tensor) -> Tensor:
        """Map (B,3,H,W) in [-1,1], sides multiples of 8, to the same."""
        drawn = self.features(photo)
        return self.output(photo + drawn if self.shortcut else drawn)

    def features(self, photo: Tensor) -> Tensor:
        """Return the output before shortcut and activation."""
        return self.decode(self.encode(photo), photo)

    def encode(self, photo: Tensor) -> list[Tensor]:
        """Return the maps at 1/2, 1/4 and 1/8 of the resolution."""
        require_multiple(photo, self.size_divisor)
        half = self.encode1(self.stem(photo))
        quarter = self.encode2(self.down1(half))
        return [half, quarter, self.middle(self.down2(quarter))]

    def decode(self, maps: list[Tensor], photo: Tensor) -> Tensor:
        """Return the output of maps, before shortcut and activation."""
        half, quarter, eighth = maps
        quarter = self.decode2(quarter + self.upsample(self.up2(eighth)))
        half = self.decode1(half + self.upsample(self.up1(quarter)))
        # Leaky ReLU, since this layer has no shortcut: with SiLU a bad early step could deactivate every unit for good.
        full = F.leaky_relu(self.upsample(self.head(half)) + self.detail(photo), SLOPE)
        return self.last(full)


class ResidualBlock(nn.Module):
    """``x + conv(SiLU(conv(norm(x))))``, both convolutions 3x3."""

    def __init__(self, channels: int, norm: str | None) -> None:
        super().__init__()
        self.norm = make_norm(norm, channels)
        self.first = ReflectConv(channels, channels, 3, bias=True)
        self.second = ReflectConv(channels, channels, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,channels,H,W) to the same shape."""
        return x + self.second(F.silu(self.first(self.norm(x))))


def _stage(channels: int, blocks: int, norm: str | None) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels, norm) for _ in range(blocks)))
