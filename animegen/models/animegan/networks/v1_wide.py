"""The generator of AnimeGeneration, a PyTorch reimplementation of AnimeGAN by students (2020)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.animegan.networks.autoencoder import UpConv
from animegen.nn.conv import SLOPE, initialise, require_multiple, scale_channels
from animegen.nn.norm import InstanceNorm
from animegen.nn.output import OutputActivation


class ConvBlock(nn.Module):
    """Zero-padded convolution with bias, instance norm without affine parameters, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = InstanceNorm(outputs, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H,W)."""
        return F.leaky_relu_(self.norm(self.conv(x)), SLOPE)


class WideSeparable(nn.Module):
    """Separable convolution: 3x3 depthwise with four filters per channel, 1x1, then one norm and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, 4 * inputs, 3, stride, padding=1, groups=inputs)
        self.pointwise = nn.Conv2d(4 * inputs, outputs, 1)
        self.norm = InstanceNorm(outputs, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.norm(self.pointwise(self.depthwise(x))), SLOPE)


class DownConv(nn.Module):
    """Sum of two ways to halve the resolution: a strided separable convolution, and subsampling followed by one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.strided = nn.Sequential(WideSeparable(inputs, outputs, 2), ConvBlock(outputs, outputs, 1))
        self.resized = nn.Sequential(WideSeparable(inputs, outputs), ConvBlock(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/2,W/2)."""
        return self.strided(x) + self.resized(x[..., ::2, ::2])


class WideResidual(nn.Module):
    """Residual block: 1x1 to twice the channels, separable convolution back, linear 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = ConvBlock(channels, 2 * channels, 1)
        self.separable = WideSeparable(2 * channels, channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm = InstanceNorm(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,channels,H,W) to the same shape."""
        return x + self.norm(self.project(self.separable(self.expand(x))))


class AnimeGANv1Wide(nn.Module):
    """AnimeGAN v1 with wide separable convolutions: 5,409,283 parameters.

    The project reduced the number of residual blocks to save memory. Since each depthwise convolution has four filters
    per channel, the network is larger than the original with 3,956,096 parameters. Other differences to AnimeGAN: all
    convolutions have biases and zero padding, norms have no parameters, and resolution changes by subsampling and by
    nearest-neighbour upsampling.

    Args:
        width: factor on all channel counts.
        blocks: number of residual blocks; 4 in the project (AnimeGAN: 8).
        outer: second convolution at full resolution at each end. Without it and with one block this is the project's
            small generator for images of 64 pixels, 3,108,227 parameters.
        output: see :class:`~animegen.nn.output.OutputActivation`; ``linear`` in the last version of the project.
    """

    size_divisor = 4

    def __init__(self, width: float = 1.0, blocks: int = 4, outer: bool = True, output: str = "linear") -> None:
        super().__init__()
        small, middle, large = (scale_channels(channels, width) for channels in (64, 128, 256))
        ends = 1 if outer else 0
        self.layers = nn.Sequential(
            # Full to quarter resolution.
            ConvBlock(3, small),
            *(ConvBlock(small, small) for _ in range(ends)),
            DownConv(small, middle),
            ConvBlock(middle, middle),
            WideSeparable(middle, middle),
            DownConv(middle, large),
            # Quarter resolution.
            ConvBlock(large, large),
            *(WideResidual(large) for _ in range(blocks)),
            ConvBlock(large, large),
            # Back to full resolution.
            UpConv(large, middle),
            WideSeparable(middle, middle),
            ConvBlock(middle, middle),
            UpConv(middle, small),
            ConvBlock(small, small),
            *(ConvBlock(small, small) for _ in range(ends)),
        )
        self.to_rgb = nn.Conv2d(small, 3, 3, padding=1)
        self.output = OutputActivation(output)
        initialise(self, "he")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 4."""
        require_multiple(images, self.size_divisor)
        return self.output(self.to_rgb(self.layers(images)))
