"""The generator of AnimeGAN (Chen, Liu, Chen, ISICA 2019), after its released code."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.conv import (
    SLOPE,
    ConvNormAct,
    ReflectConv,
    SeparableConv,
    Upsample,
    halve,
    initialise,
    require_multiple,
    scale_channels,
)
from animegen.nn.norm import make_norm
from animegen.nn.output import OutputActivation


class InvertedResidual(nn.Module):
    """Inverted residual block: 1x1 expansion, 3x3 depthwise convolution, linear 1x1 projection, residual connection.

    Args:
        inputs: input channels.
        outputs: output channels. The residual connection exists only if they equal ``inputs``.
        expansion: ratio of hidden channels to ``inputs``.
        norm: norm after each of the three convolutions.
        depthwise_bias: bias of the 3x3 convolution (v2 has one, v1 has none).
    """

    def __init__(
        self, inputs: int, outputs: int, expansion: int = 2, norm: str | None = "instance", depthwise_bias: bool = False
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = ConvNormAct(inputs, inner, 1, norm=norm)
        self.depthwise = ReflectConv(inner, inner, 3, groups=inner, bias=depthwise_bias)
        self.depthwise_norm = make_norm(norm, inner)
        self.project = ReflectConv(inner, outputs, 1)
        self.project_norm = make_norm(norm, outputs)
        self.residual = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H,W)."""
        y = F.leaky_relu_(self.depthwise_norm(self.depthwise(self.expand(x))), SLOPE)
        y = self.project_norm(self.project(y))
        return x + y if self.residual else y


class DualDownsample(nn.Module):
    """Sum of two ways to halve the resolution: a strided separable convolution, and resizing followed by one."""

    def __init__(self, inputs: int, outputs: int, norm: str | None, mode: str) -> None:
        super().__init__()
        self.strided = SeparableConv(inputs, outputs, stride=2, norm=norm)
        self.resized = SeparableConv(inputs, outputs, norm=norm)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/2,W/2)."""
        return self.strided(x) + self.resized(halve(x, self.mode))


class AnimeGANv1(nn.Module):
    """AnimeGAN's generator: 3,956,096 parameters with 8 inverted residual blocks, 2,878,848 with 4.

    Args:
        blocks: number of inverted residual blocks at a quarter of the resolution.
        width: factor on all channel counts.
        norm: ``instance`` (as published), ``layer``, ``lade`` or ``None``.
        upsample: see :class:`~animegen.nn.conv.Upsample`; ``tf1`` is that of the authors' framework.
        output: see :class:`~animegen.nn.output.OutputActivation`.

    The first convolution after the last upsampling has 128 input channels as in the code (64 in the figure of the
    paper). All norms have an epsilon of 1e-5; the code has 1e-6 inside separable convolutions.
    """

    size_divisor = 4

    def __init__(
        self,
        blocks: int = 8,
        width: float = 1.0,
        norm: str | None = "instance",
        upsample: str = "bilinear",
        output: str = "tanh",
    ) -> None:
        super().__init__()
        small, middle, large = (scale_channels(channels, width) for channels in (64, 128, 256))
        self.encoder = nn.Sequential(
            ConvNormAct(3, small, norm=norm),
            ConvNormAct(small, small, norm=norm),
            DualDownsample(small, middle, norm, upsample),
            ConvNormAct(middle, middle, norm=norm),
            SeparableConv(middle, middle, norm=norm),
            DualDownsample(middle, large, norm, upsample),
        )
        self.body = nn.Sequential(
            ConvNormAct(large, large, norm=norm),
            *(InvertedResidual(large, large, norm=norm) for _ in range(blocks)),
            ConvNormAct(large, large, norm=norm),
        )
        self.decoder = nn.Sequential(
            Upsample(upsample, large),
            SeparableConv(large, middle, norm=norm),
            SeparableConv(middle, middle, norm=norm),
            ConvNormAct(middle, middle, norm=norm),
            Upsample(upsample, middle),
            SeparableConv(middle, middle, norm=norm),
            ConvNormAct(middle, small, norm=norm),
            ConvNormAct(small, small, norm=norm),
        )
        self.to_rgb = ReflectConv(small, 3, 1)
        self.output = OutputActivation(output)
        initialise(self, "xavier")
        for block in self.body:
            if isinstance(block, InvertedResidual):
                nn.init.trunc_normal_(block.depthwise.weight, std=0.02, a=-0.04, b=0.04)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 4."""
        require_multiple(images, self.size_divisor)
        return self.output(self.to_rgb(self.decoder(self.body(self.encoder(images)))))
