"""Convolution blocks with reflection padding, resizing, and weight initialisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.norm import make_norm
from animegen.nn.precision import reflect_pad

SLOPE = 0.2
"""Negative slope of the leaky ReLU in all AnimeGAN networks."""


def scale_channels(channels: int, width: float) -> int:
    """Return ``channels * width`` rounded to a multiple of 8, at least 8."""
    return max(8, round(channels * width / 8) * 8)


def require_multiple(images: Tensor, divisor: int) -> None:
    """Check that height and width of ``images`` (B,C,H,W) are multiples of ``divisor``, at least twice as large.

    Raises:
        AnimegenError: otherwise. Not checked during compilation and export, where it would fix the graph to one size.
    """
    if torch.compiler.is_compiling():
        return
    height, width = images.shape[-2:]
    if height % divisor or width % divisor or min(height, width) < 2 * divisor:
        raise AnimegenError(
            f"The network needs images whose sides are multiples of {divisor} and at least {2 * divisor} pixels,"
            f" not {height}x{width}: set image_size or the crop accordingly, or pad the image."
        )


class ReflectConv(nn.Conv2d):
    """Convolution with reflection padding; the output has 1/stride of the input's size.

    If the padding is odd, the extra pixel goes right and below, as with TensorFlow's "SAME": a 3x3
    convolution of stride 2 pads (left 0, right 1, top 0, bottom 1). Both sides must be multiples of the stride.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=bias)
        total = max(kernel - stride, 0)
        before, after = total // 2, total - total // 2
        self.border = (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        if any(self.border):
            input = reflect_pad(input, self.border)
        return super().forward(input)


class ConvNormAct(nn.Module):
    """Convolution with reflection padding and without bias, norm, leaky ReLU ("CNA" in AnimeGAN)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, norm: str | None = "instance"
    ) -> None:
        super().__init__()
        self.conv = ReflectConv(inputs, outputs, kernel, stride)
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.norm(self.conv(x)), SLOPE)


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, norm, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, norm: str | None = "instance") -> None:
        super().__init__()
        self.depthwise = ReflectConv(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = ReflectConv(inputs, outputs, 1)
        self.norm = make_norm(norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,H/stride,W/stride)."""
        return F.leaky_relu_(self.norm(self.pointwise(self.depthwise(x))), SLOPE)


UPSAMPLING = ("bilinear", "bilinear_align", "nearest", "tf1", "pixelshuffle")


class Upsample(nn.Module):
    """Double height and width.

    Args:
        mode: ``bilinear`` (half-pixel centres), ``bilinear_align`` (``align_corners=True``; depends on the image size,
            so tiled inference is inexact), ``nearest``, ``tf1`` (TensorFlow 1's bilinear, which samples at
            destination / 2: x0, (x0+x1)/2, x1, ...; for weights trained there) or ``pixelshuffle`` (learned 1x1
            convolution to 4C channels, rearranged).
        channels: number of channels, for ``pixelshuffle``.

    Raises:
        AnimegenError: for an unknown mode.
    """

    def __init__(self, mode: str = "bilinear", channels: int = 1) -> None:
        super().__init__()
        if mode not in UPSAMPLING:
            raise AnimegenError(
                f"There is no upsampling '{mode}': choose one of {', '.join(UPSAMPLING)}."
                + did_you_mean(mode, UPSAMPLING)
            )
        self.mode = mode
        self.expand = nn.Conv2d(channels, 4 * channels, 1, bias=False) if mode == "pixelshuffle" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,C,H,W) to (B,C,2H,2W)."""
        if self.expand is not None:
            return F.pixel_shuffle(self.expand(x), 2)
        if self.mode == "nearest":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        if self.mode == "tf1":
            return _double_tf1(_double_tf1(x, -1), -2)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=self.mode == "bilinear_align")


def _double_tf1(x: Tensor, dim: int) -> Tensor:
    """Interleave ``x`` with the means of neighbours along ``dim``; the last element is its own neighbour."""
    following = torch.cat([x.narrow(dim, 1, x.shape[dim] - 1), x.narrow(dim, x.shape[dim] - 1, 1)], dim)
    return torch.stack([x, (x + following) / 2], dim=x.dim() + dim + 1).flatten(x.dim() + dim, x.dim() + dim + 1)


def halve(x: Tensor, mode: str = "bilinear") -> Tensor:
    """Halve height and width (both even) of ``x``, the counterpart of ``Upsample(mode)``.

    ``tf1`` and ``nearest`` keep every second pixel. The other modes average 2x2 pixels, which equals bilinear
    resizing with half-pixel centres.
    """
    if mode in ("tf1", "nearest"):
        return x[..., ::2, ::2]
    return F.avg_pool2d(x, 2)


def initialise(network: nn.Module, scheme: str) -> None:
    """Initialise all convolutions of ``network``: biases 0, weights by ``scheme``.

    ``xavier``: uniform, as in AnimeGAN v1. ``he``: normal with variance 2/fan-in, as in AnimeGANv2. ``normal``:
    N(0, 0.02), as in DCGAN, for discriminators. Learned upsampling starts as nearest-neighbour resizing, free of
    checkerboard artefacts (Aitken et al. 2017).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            if scheme == "xavier":
                # torch's xavier_uniform_ counts the outputs of all groups: too small for depthwise convolutions.
                fans = module.weight[0].numel() * (1 + module.out_channels / module.in_channels)
                bound = (6 / fans) ** 0.5
                nn.init.uniform_(module.weight, -bound, bound)
            elif scheme == "he":
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif scheme == "normal":
                nn.init.normal_(module.weight, std=0.02)
            else:
                raise ValueError(f"unknown initialisation '{scheme}'")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Upsample) and module.expand is not None:
            with torch.no_grad():
                module.expand.weight.copy_(module.expand.weight[::4].repeat_interleave(4, dim=0))
