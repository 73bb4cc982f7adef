"""The networks of AnimeGANv3, a double-tail generative adversarial network (DTGAN), after the released code.

Liu, Chen, Gao, "A Novel Double-Tail Generative Adversarial Network for Fast Photo Animation", IEICE Transactions on
Information and Systems E107.D(1), 2024.
"""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.attention import ExternalAttention
from animegen.nn.conv import SLOPE, ReflectConv, Upsample, initialise, require_multiple, scale_channels
from animegen.nn.norm import LADE
from animegen.nn.output import OutputActivation
from animegen.nn.spectral import spectral_norm


class ConvLADE(nn.Module):
    """Reflect-padded convolution without bias, LADE, leaky ReLU. Of stride 2 it pads on top and left, unlike v2."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = ReflectConv(inputs, outputs, kernel, stride)
        self.conv.border = (*reversed(self.conv.border[:2]), *reversed(self.conv.border[2:]))
        self.norm = LADE(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.norm(self.conv(x)), SLOPE)


class Encoder(nn.Module):
    """The base: from the picture to 1/8 of its size, keeping the maps of the sizes in between."""

    def __init__(self, c32: int, c64: int, c128: int) -> None:
        super().__init__()
        self.stem = ConvLADE(3, c32, 7)
        self.down1 = nn.Sequential(ConvLADE(c32, c32, stride=2), ConvLADE(c32, c64))
        self.down2 = nn.Sequential(ConvLADE(c64, c64, stride=2), ConvLADE(c64, c128))
        self.down3 = nn.Sequential(ConvLADE(c128, c128, stride=2), ConvLADE(c128, c128))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B,3,H,W) to the maps of full, half, quarter and eighth size."""
        maps = [self.stem(images)]
        for stage in (self.down1, self.down2, self.down3):
            maps.append(stage(maps[-1]))
        return maps


class Tail(nn.Module):
    """From the maps of the base back to a picture: external attention, then a decoder with additive skips.

    The attention's memory has as many entries as the map has channels: 128 as published.
    """

    def __init__(self, c32: int, c64: int, c128: int, upsample: str, output: str) -> None:
        super().__init__()
        self.attention = ExternalAttention(c128, slots=c128)
        self.up1 = nn.Sequential(Upsample(upsample, c128), ConvLADE(c128, c128))
        self.merge1 = ConvLADE(c128, c128)
        self.up2 = nn.Sequential(Upsample(upsample, c128), ConvLADE(c128, c64))
        self.merge2 = ConvLADE(c64, c64)
        self.up3 = nn.Sequential(Upsample(upsample, c64), ConvLADE(c64, c32))
        self.merge3 = ConvLADE(c32, c32)
        self.to_rgb = ReflectConv(c32, 3, 7)
        self.output = OutputActivation(output)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the list of :class:`Encoder` to pictures (B,3,H,W) in [-1,1]."""
        full, half, quarter, eighth = maps
        x = self.merge1(self.up1(self.attention(eighth)) + quarter)
        x = self.merge2(self.up2(x) + half)
        x = self.merge3(self.up3(x) + full)
        return self.output(self.to_rgb(x))


class AnimeGANv3(nn.Module):
    """AnimeGANv3's generator as it is applied, base and main tail: 1,027,520 parameters.

    Args:
        width: factor on all channel counts, and on the entries of the attention's memory.
        upsample: see :class:`~animegen.nn.conv.Upsample`.
        output: see :class:`~animegen.nn.output.OutputActivation`.
    """

    factor = 8

    def __init__(self, width: float = 1.0, upsample: str = "bilinear", output: str = "tanh") -> None:
        super().__init__()
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.base = Encoder(c32, c64, c128)
        self.main = Tail(c32, c64, c128, upsample, output)
        initialise(self, "xavier")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to pictures of the same shape and range; H and W are multiples of 8."""
        require_multiple(images, self.factor)
        return self.main(self.base(images))


class AnimeGANv3DoubleTail(AnimeGANv3):
    """AnimeGANv3's generator as it is trained: 1,557,792 parameters, of which the support tail has 530,272.

    ``forward`` still runs base and main tail only.

    Args: as for :class:`AnimeGANv3`.
    """

    def __init__(self, width: float = 1.0, upsample: str = "bilinear", output: str = "tanh") -> None:
        super().__init__(width, upsample, output)
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.support = Tail(c32, c64, c128, upsample, output)
        initialise(self.support, "xavier")

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pictures of the support and of the main tail, each as ``forward`` returns them."""
        require_multiple(images, self.factor)
        maps = self.base(images)
        return self.support(maps), self.main(maps)


class AnimeGANv3Discriminator(nn.Module):
    """AnimeGANv3's patch discriminator: 693,088 parameters, logits of H/8 x W/8.

    A 7x7 convolution, three times (3x3 of stride 2, 3x3 of stride 1 to twice the channels), each with LADE, and a 1x1
    convolution; no biases, spectral norm on all of them and on those inside LADE, leaky ReLU 0.2, zero padding.

    Args:
        width: factor on all channel counts.
    """

    factor = 8

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        sizes = [scale_channels(channels, width) for channels in (32, 64, 128, 256)]
        layers: list[nn.Module] = [nn.Conv2d(3, sizes[0], 7, padding=3, bias=False), nn.LeakyReLU(SLOPE, inplace=True)]
        for inputs, outputs in pairwise(sizes):
            for channels, stride in ((inputs, 2), (outputs, 1)):
                layers += [
                    nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False),
                    LADE(channels),
                    nn.LeakyReLU(SLOPE, inplace=True),
                ]
        layers.append(nn.Conv2d(sizes[-1], 1, 1, bias=False))
        self.layers = nn.Sequential(*layers)
        initialise(self, "xavier")
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to logits (B,1,H/8,W/8), rounded up; higher = more real."""
        return self.layers(images)
