"""The generator of a first student project on AnimeGAN: fewer residual blocks, but four filters per channel."""

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
    """Depthwise 3x3 with four filters per channel, 1x1, then one norm and one leaky ReLU for both."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, 4 * inputs, 3, stride, padding=1, groups=inputs)
        self.pointwise = nn.Conv2d(4 * inputs, outputs, 1)
        self.norm = InstanceNorm(outputs, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.norm(self.pointwise(self.depthwise(x))), SLOPE)


class DownConv(nn.Module):
    """Halve the size by a strided separable convolution, and by dropping pixels before one, and add both."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.strided = nn.Sequential(WideSeparable(inputs, outputs, 2), ConvBlock(outputs, outputs, 1))
        self.resized = nn.Sequential(WideSeparable(inputs, outputs), ConvBlock(outputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/2,W/2)."""
        return self.strided(x) + self.resized(x[..., ::2, ::2])


class WideResidual(nn.Module):
    """1x1 to twice the channels, separable convolution back, 1x1 without activation, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = ConvBlock(channels, 2 * channels, 1)
        self.separable = WideSeparable(2 * channels, channels)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm = InstanceNorm(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,channels,H,W) to the same shape."""
        return x + self.norm(self.project(self.separable(self.expand(x))))


class SeedGenerator(nn.Module):
    """AnimeGAN's graph as a student project rebuilt it, to need less memory: 5,409,283 parameters, more than the
    original's 3,956,096, since each depthwise convolution has four filters per channel.

    Different from AnimeGAN, too: all convolutions have biases and zero padding, norms have no parameters, sizes are
    halved by dropping and doubled by repeating pixels.

    Args:
        width: factor on all channel counts.
        blocks: number of residual blocks; 4 in the project (AnimeGAN: 8).
        outer: whether each end has its second convolution at full size; without them and with one block it is the
            project's small generator for pictures of 64 pixels, 3,108,227 parameters.
        output: see :class:`~animegen.nn.output.OutputActivation`; ``linear`` in the project's
            last version.
    """

    factor = 4

    def __init__(self, width: float = 1.0, blocks: int = 4, outer: bool = True, output: str = "linear") -> None:
        super().__init__()
        small, middle, large = (scale_channels(channels, width) for channels in (64, 128, 256))
        ends = 1 if outer else 0
        self.layers = nn.Sequential(
            # Full size to a quarter.
            ConvBlock(3, small),
            *(ConvBlock(small, small) for _ in range(ends)),
            DownConv(small, middle),
            ConvBlock(middle, middle),
            WideSeparable(middle, middle),
            DownConv(middle, large),
            # At a quarter.
            ConvBlock(large, large),
            *(WideResidual(large) for _ in range(blocks)),
            ConvBlock(large, large),
            # Back to full size.
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
        """Map images (B,3,H,W) in [-1,1] to pictures of the same shape and range; H and W are multiples of 4."""
        require_multiple(images, self.factor)
        return self.output(self.to_rgb(self.layers(images)))
