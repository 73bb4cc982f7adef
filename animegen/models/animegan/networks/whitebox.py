"""Networks of White-box cartoonization (Wang and Yu, CVPR 2020), after its released code."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import SLOPE, ReflectConv, Upsample, initialise, require_multiple, scale_channels
from animegen.nn.filters import guided_filter
from animegen.nn.output import OutputActivation
from animegen.nn.spectral import spectral_norm


class ConvAct(nn.Module):
    """Reflect-padded convolution with bias, leaky ReLU. This network has no norms."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = ReflectConv(inputs, outputs, kernel, stride, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.conv(x), SLOPE)


class PlainResidual(nn.Module):
    """Convolution, leaky ReLU, convolution, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(ConvAct(channels, channels), ReflectConv(channels, channels, bias=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,channels,H,W) to the same shape."""
        return x + self.layers(x)


class WhiteBoxUNet(nn.Module):
    """U-Net whose output is filtered with the photo as guide: 1,467,075 parameters.

    All borders are padded by reflection; the released code pads with zeros.

    Args:
        width: factor on all channel counts.
        radius: radius of the guided filter of the output, 1 as published; 0 for none.
        eps: epsilon of the filter, 5e-3 as published for images in [-1,1]: the output is smoothed where the photo
            changes by less than about 0.07.
        upsample: see :class:`~animegen.nn.conv.Upsample`.
        output: ``linear`` as published (clamped in evaluation), ``tanh`` or ``sigmoid``.
    """

    size_divisor = 4

    def __init__(
        self,
        width: float = 1.0,
        radius: int = 1,
        eps: float = 5e-3,
        upsample: str = "bilinear",
        output: str = "linear",
    ) -> None:
        super().__init__()
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.radius, self.eps = radius, eps
        self.stem = ConvAct(3, c32, 7)
        self.down1 = nn.Sequential(ConvAct(c32, c32, stride=2), ConvAct(c32, c64))
        self.down2 = nn.Sequential(ConvAct(c64, c64, stride=2), ConvAct(c64, c128))
        self.body = nn.Sequential(*(PlainResidual(c128) for _ in range(4)), ConvAct(c128, c64))
        self.up2 = Upsample(upsample, c64)
        self.merge2 = nn.Sequential(ConvAct(c64, c64), ConvAct(c64, c32))
        self.up1 = Upsample(upsample, c32)
        self.merge1 = ConvAct(c32, c32)
        self.to_rgb = ReflectConv(c32, 3, 7, bias=True)
        self.output = OutputActivation(output)
        initialise(self, "he")
        # Without norms the activations grow with each residual block and skip, and no tanh limits the output.
        nn.init.normal_(self.to_rgb.weight, std=0.1 / self.to_rgb.weight[0].numel() ** 0.5)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 4.

        While training, values may leave the range.
        """
        require_multiple(images, self.size_divisor)
        full = self.stem(images)
        half = self.down1(full)
        x = self.body(self.down2(half))
        x = self.merge2(self.up2(x) + half)
        x = self.to_rgb(self.merge1(self.up1(x) + full))
        if self.radius:
            x = guided_filter(x, images, self.radius, self.eps)
        return self.output(x)


class WhiteBoxDiscriminator(nn.Module):
    """Patch discriminator with spectral norm, logits at 1/8 of the resolution.

    Three times a 3x3 convolution of stride 2 and one of stride 1, with 32, 64 and 128 channels, biases and leaky ReLU,
    then a 1x1 convolution. Zero padding, weights N(0, 0.02).

    Args:
        channels: channels of the first level.
        width: factor on all channel counts.
    """

    size_divisor = 8

    def __init__(self, channels: int = 32, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for level in range(3):
            outputs = scale_channels(channels * 2**level, width)
            for stride in (2, 1):
                layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.LeakyReLU(SLOPE, inplace=True)]
                inputs = outputs
        layers.append(nn.Conv2d(inputs, 1, 1))
        self.layers = nn.Sequential(*layers)
        initialise(self, "normal")
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                spectral_norm(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to logits (B,1,H/8,W/8), rounded up; higher = more real."""
        return self.layers(images)
