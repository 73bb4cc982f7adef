"""The generators of AnimeGANv2, after its released code: the published one and two lite versions from its history."""

from __future__ import annotations

from torch import Tensor, nn

from animegen.models.animegan.networks.v1 import InvertedResidual
from animegen.nn.conv import ConvNormAct, ReflectConv, Upsample, initialise, require_multiple, scale_channels
from animegen.nn.output import OutputActivation


class Bottleneck(nn.Module):
    """Residual block of 1x1, 3x3 and 1x1 convolutions; the last has neither norm nor activation."""

    def __init__(self, channels: int, inner: int, norm: str | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNormAct(channels, inner, 1, norm=norm),
            ConvNormAct(inner, inner, norm=norm),
            ReflectConv(inner, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,channels,H,W) to the same shape."""
        return x + self.layers(x)


class AnimeGANv2(nn.Module):
    """AnimeGANv2's generator: 2,143,552 parameters.

    Args:
        width: factor on all channel counts.
        blocks: number of residual blocks at the lowest resolution, published as 4.
        norm: ``layer`` (published, against high-frequency artefacts of v1), ``instance``, ``lade`` or ``None``.
        upsample: see :class:`~animegen.nn.conv.Upsample`; ``tf1`` is that of the authors' framework.
        output: see :class:`~animegen.nn.output.OutputActivation`.
        output_bias: bias of the last convolution; the published network has none, a PyTorch port has one.
    """

    size_divisor = 4

    def __init__(
        self,
        width: float = 1.0,
        blocks: int = 4,
        norm: str | None = "layer",
        upsample: str = "bilinear",
        output: str = "tanh",
        output_bias: bool = False,
    ) -> None:
        super().__init__()
        c32, c64, c128, c256 = (scale_channels(channels, width) for channels in (32, 64, 128, 256))
        self.layers = nn.Sequential(
            # Full to quarter resolution.
            ConvNormAct(3, c32, 7, norm=norm),
            ConvNormAct(c32, c64, stride=2, norm=norm),
            ConvNormAct(c64, c64, norm=norm),
            ConvNormAct(c64, c128, stride=2, norm=norm),
            ConvNormAct(c128, c128, norm=norm),
            # Quarter resolution.
            ConvNormAct(c128, c128, norm=norm),
            InvertedResidual(c128, c256, norm=norm, depthwise_bias=True),
            *(InvertedResidual(c256, c256, norm=norm, depthwise_bias=True) for _ in range(blocks - 1)),
            ConvNormAct(c256, c128, norm=norm),
            # Back to full resolution.
            Upsample(upsample, c128),
            ConvNormAct(c128, c128, norm=norm),
            ConvNormAct(c128, c128, norm=norm),
            Upsample(upsample, c128),
            ConvNormAct(c128, c64, norm=norm),
            ConvNormAct(c64, c64, norm=norm),
            ConvNormAct(c64, c32, 7, norm=norm),
        )
        self.to_rgb = ReflectConv(c32, 3, 1, bias=output_bias)
        self.output = OutputActivation(output)
        initialise(self, "he")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 4."""
        require_multiple(images, self.size_divisor)
        return self.output(self.to_rgb(self.layers(images)))


class AnimeGANv2Lite(nn.Module):
    """The later lite generator, a U-Net with additive skips: 698,240 parameters.

    The arguments are those of :class:`AnimeGANv2`, and ``outer_kernel``: the size of the first and last kernel at full
    resolution, published as 7. With 3 the computation is little more than half.
    """

    size_divisor = 8

    def __init__(
        self,
        width: float = 1.0,
        blocks: int = 4,
        norm: str | None = "layer",
        upsample: str = "bilinear",
        output: str = "tanh",
        outer_kernel: int = 7,
    ) -> None:
        super().__init__()
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.stem = ConvNormAct(3, c32, outer_kernel, norm=norm)
        self.down1 = nn.Sequential(ConvNormAct(c32, c32, stride=2, norm=norm), ConvNormAct(c32, c64, norm=norm))
        self.down2 = nn.Sequential(ConvNormAct(c64, c64, stride=2, norm=norm), ConvNormAct(c64, c128, norm=norm))
        self.down3 = nn.Sequential(ConvNormAct(c128, c64, stride=2, norm=norm), ConvNormAct(c64, c128, norm=norm))
        self.body = nn.Sequential(*(Bottleneck(c128, c32, norm) for _ in range(blocks)))
        self.up3 = nn.Sequential(Upsample(upsample, c128), ConvNormAct(c128, c128, norm=norm))
        self.up2 = nn.Sequential(
            ConvNormAct(c128, c64, norm=norm), Upsample(upsample, c64), ConvNormAct(c64, c64, norm=norm)
        )
        self.up1 = nn.Sequential(
            ConvNormAct(c64, c32, norm=norm), Upsample(upsample, c32), ConvNormAct(c32, c32, norm=norm)
        )
        self.last = ConvNormAct(c32, c32, outer_kernel, norm=norm)
        self.to_rgb = ReflectConv(c32, 3, 1)
        self.output = OutputActivation(output)
        initialise(self, "he")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 8."""
        require_multiple(images, self.size_divisor)
        full = self.stem(images)
        half = self.down1(full)
        quarter = self.down2(half)
        x = self.up3(self.body(self.down3(quarter)))
        x = self.up2(x + quarter)
        x = self.up1(x + half)
        return self.output(self.to_rgb(self.last(x + full)))


class AnimeGANv2LitePlain(nn.Module):
    """The earlier lite generator, without skips: 962,368 parameters. It takes the arguments of :class:`AnimeGANv2`."""

    size_divisor = 4

    def __init__(
        self,
        width: float = 1.0,
        blocks: int = 4,
        norm: str | None = "layer",
        upsample: str = "bilinear",
        output: str = "tanh",
    ) -> None:
        super().__init__()
        c32, c64, c128 = (scale_channels(channels, width) for channels in (32, 64, 128))
        self.layers = nn.Sequential(
            # Full to quarter resolution.
            ConvNormAct(3, c32, 7, norm=norm),
            ConvNormAct(c32, c32, stride=2, norm=norm),
            ConvNormAct(c32, c32, norm=norm),
            ConvNormAct(c32, c64, stride=2, norm=norm),
            ConvNormAct(c64, c64, norm=norm),
            ConvNormAct(c64, c64, norm=norm),
            # Quarter resolution.
            *(Bottleneck(c64, c128, norm) for _ in range(blocks)),
            # Back to full resolution.
            Upsample(upsample, c64),
            *(ConvNormAct(c64, c64, norm=norm) for _ in range(3)),
            Upsample(upsample, c64),
            ConvNormAct(c64, c32, norm=norm),
            ConvNormAct(c32, c32, norm=norm),
            ConvNormAct(c32, c32, 7, norm=norm),
        )
        self.to_rgb = ReflectConv(c32, 3, 1)
        self.output = OutputActivation(output)
        initialise(self, "he")

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 4."""
        require_multiple(images, self.size_divisor)
        return self.output(self.to_rgb(self.layers(images)))
