"""Networks of AnimeGANv3, a double-tail generative adversarial network (DTGAN), after the released code.

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
    """Reflect-padded convolution without bias, LADE, leaky ReLU. With stride 2 it pads at the top and left."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = ReflectConv(inputs, outputs, kernel, stride)
        self.conv.border = (*reversed(self.conv.border[:2]), *reversed(self.conv.border[2:]))
        self.norm = LADE(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.norm(self.conv(x)), SLOPE)


class AnimeGANv3Encoder(nn.Module):
    """Encoder shared by both tails: feature maps from full to 1/8 resolution."""

    def __init__(self, c32: int, c64: int, c128: int) -> None:
        super().__init__()
        self.stem = ConvLADE(3, c32, 7)
        self.down1 = nn.Sequential(ConvLADE(c32, c32, stride=2), ConvLADE(c32, c64))
        self.down2 = nn.Sequential(ConvLADE(c64, c64, stride=2), ConvLADE(c64, c128))
        self.down3 = nn.Sequential(ConvLADE(c128, c128, stride=2), ConvLADE(c128, c128))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B,3,H,W) to feature maps at 1, 1/2, 1/4 and 1/8 of the resolution."""
        maps = [self.stem(images)]
        for stage in (self.down1, self.down2, self.down3):
            maps.append(stage(maps[-1]))
        return maps


class AnimeGANv3Tail(nn.Module):
    """External attention and a decoder with additive skips, from the feature maps of the encoder to an image.

    The memory of the attention has as many entries as the map has channels, 128 as published.
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
        """Map the feature maps of :class:`AnimeGANv3Encoder` to images (B,3,H,W) in [-1,1]."""
        full, half, quarter, eighth = maps
        x = self.merge1(self.up1(self.attention(eighth)) + quarter)
        x = self.merge2(self.up2(x) + half)
        x = self.merge3(self.up3(x) + full)
        return self.output(self.to_rgb(x))


class AnimeGANv3(nn.Module):
    """AnimeGANv3's generator in application, encoder and main tail: 1,027,520 parameters.

    Args:
        width: factor on all channel counts, and on the number of entries of the attention memory.
        upsample: see :class:`~animegen.nn.conv.Upsample`.
        output: see :class:`~animegen.nn.output.OutputActivation`.
    """

    size_divisor = 8

    def __init__(self, width: float = 1.0, upsample: str = "bilinear", output: str = "tanh") -> None:
        super().__init__()
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.base = AnimeGANv3Encoder(c32, c64, c128)
        self.main = AnimeGANv3Tail(c32, c64, c128, upsample, output)
        initialise(self, "xavier")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 8."""
        require_multiple(images, self.size_divisor)
        return self.main(self.base(images))


class AnimeGANv3DoubleTail(AnimeGANv3):
    """AnimeGANv3's generator in training: 1,557,792 parameters, of which the support tail has 530,272.

    ``forward`` runs encoder and main tail only. It takes the arguments of :class:`AnimeGANv3`.
    """

    exported = ("base", "main")

    def __init__(self, width: float = 1.0, upsample: str = "bilinear", output: str = "tanh") -> None:
        super().__init__(width, upsample, output)
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.support = AnimeGANv3Tail(c32, c64, c128, upsample, output)
        initialise(self.support, "xavier")

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs of the support tail and of the main tail, each as ``forward`` returns it."""
        require_multiple(images, self.size_divisor)
        maps = self.base(images)
        return self.support(maps), self.main(maps)


class AnimeGANv3Discriminator(nn.Module):
    """AnimeGANv3's patch discriminator: 693,088 parameters, logits of H/8 x W/8.

    A 7x7 convolution, three times (3x3 of stride 2, 3x3 to twice the channels), each with LADE, and a 1x1 convolution.
    No biases; spectral norm on all convolutions, including those of LADE; leaky ReLU 0.2; zero padding.

    Args:
        width: factor on all channel counts.
    """

    size_divisor = 8

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
