"""The generator of CartoonGAN (Chen, Lai, Liu, CVPR 2018), after a widely used reimplementation."""

from __future__ import annotations

from torch import Tensor, nn

from animegen.nn.conv import ReflectConv, Upsample, initialise, require_multiple, scale_channels
from animegen.nn.norm import make_norm
from animegen.nn.output import OutputActivation


class NormResidualBlock(nn.Module):
    """Convolution, norm, ReLU, convolution, norm, plus the input."""

    def __init__(self, channels: int, norm: str | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ReflectConv(channels, channels),
            make_norm(norm, channels),
            nn.ReLU(inplace=True),
            ReflectConv(channels, channels),
            make_norm(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,channels,H,W) to the same shape."""
        return x + self.layers(x)


class TransposedConv(nn.ConvTranspose2d):
    """3x3 transposed convolution of stride 2: doubles the resolution. It is prone to checkerboard artefacts."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
        nn.init.normal_(self.weight, std=(2 / (inputs * 9 / 4)) ** 0.5)  # a pixel sums 9/4 of the 9 weights on average
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class CartoonGAN(nn.Module):
    """CartoonGAN's generator: 11,124,931 parameters.

    All borders are padded by reflection; the reimplementation pads some layers with zeros.

    Args:
        blocks: number of residual blocks at a quarter of the resolution.
        width: factor on all channel counts.
        norm: ``instance`` as published, ``layer``, ``lade`` or ``None``.
        upsample: ``transposed`` as published, or a mode of :class:`~animegen.nn.conv.Upsample`, followed by a
            convolution with as many parameters; the latter avoids checkerboard artefacts.
        output: see :class:`~animegen.nn.output.OutputActivation`.
    """

    size_divisor = 4

    def __init__(
        self,
        blocks: int = 8,
        width: float = 1.0,
        norm: str | None = "instance",
        upsample: str = "transposed",
        output: str = "tanh",
    ) -> None:
        super().__init__()
        c64, c128, c256 = (scale_channels(channels, width) for channels in (64, 128, 256))

        def up(inputs: int, outputs: int) -> list[nn.Module]:
            if upsample == "transposed":
                return [TransposedConv(inputs, outputs)]
            return [Upsample(upsample, inputs), ReflectConv(inputs, outputs, bias=True)]

        def conv(channels: int) -> list[nn.Module]:
            return [ReflectConv(channels, channels), make_norm(norm, channels), nn.ReLU(inplace=True)]

        self.layers = nn.Sequential(
            ReflectConv(3, c64, 7),
            make_norm(norm, c64),
            nn.ReLU(inplace=True),
            ReflectConv(c64, c128, stride=2, bias=True),
            *conv(c128),
            ReflectConv(c128, c256, stride=2, bias=True),
            *conv(c256),
            *(NormResidualBlock(c256, norm) for _ in range(blocks)),
            *up(c256, c128),
            *conv(c128),
            *up(c128, c64),
            *conv(c64),
        )
        self.to_rgb = ReflectConv(c64, 3, 7, bias=True)
        self.output = OutputActivation(output)
        initialise(self, "he")
        # Initial images are gray: tanh would saturate for outputs of unit variance.
        nn.init.normal_(self.to_rgb.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 4."""
        require_multiple(images, self.size_divisor)
        return self.output(self.to_rgb(self.layers(images)))
