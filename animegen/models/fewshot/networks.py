"""The networks of few-shot patch-based training: generator "J", and a small patch discriminator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.fewshot.fast import FoldingSequential, in_strips
from animegen.nn.conv import SLOPE, initialise, require_multiple, scale_channels
from animegen.nn.norm import InstanceNorm

FILTERS = (32, 64, 128, 128, 128, 64)
"""Channels after conv0, conv1, conv2 (and in the residual blocks), up2, up1 and conv_11."""

NORMS = ("batch", "instance", "group", "none")
UPSAMPLING = ("folded", "nearest", "bilinear")
LAST = ("7", "5", "3", "separable")
INITS = ("torch", "normal")
REACH = 6
"""Rows that the end of the generator looks up and down: 1 to double the size, 3 and twice 1 in its convolutions."""


class FewShotGenerator(nn.Module):
    """The generator of Texler et al. 2020: a U-Net whose last convolution sees the input again.

    With the defaults 3,267,523 parameters (3,281,635 with one RGB guide); half of all arithmetic is the 7x7
    convolution before the end. A value depends on about 141 x 141 pixels around it. With batch norm, trained on
    patches, it runs on whole frames: in eval mode nothing looks at the whole picture.

    Args:
        inputs: channels of the input: 3 of the frame and those of the guides.
        filters: see :data:`FILTERS`.
        blocks: residual blocks at a quarter of the size.
        norm: ``batch``, ``instance``, ``group`` (8 groups at most) or ``none``.
        upsampling: ``nearest`` (repeat pixels, then 3x3), ``folded`` (the same result with 2.25 times less
            arithmetic), or ``bilinear`` (corners aligned).
        last: kernel of the convolution before the end: ``7``, ``5``, ``3``, or ``separable`` (1x1, then 7x7 per
            channel).
        second_norm: another norm after the second convolution of each residual block.
        init: ``torch`` (the defaults of PyTorch) or ``normal`` (N(0, 0.02)).
        width: factor on all channel counts.

    Maps (B, inputs, H, W) in [-1, 1] to (B, 3, H, W) in [-1, 1]; sides must be multiples of 4.

    Source: Texler et al., "Interactive Video Stylization Using Few-Shot Patch-Based Training", ACM TOG 39(4), 2020, and
    the configuration of its released code.

    Raises:
        AnimegenError: for a choice that does not exist.
    """

    factor = 4

    def __init__(
        self,
        inputs: int = 3,
        filters: Sequence[int] = FILTERS,
        blocks: int = 7,
        norm: str = "batch",
        upsampling: str = "folded",
        last: str | int = "7",
        second_norm: bool = False,
        init: str = "torch",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        last = str(last)
        for option, value, known in (
            ("norm", norm, NORMS),
            ("upsampling", upsampling, UPSAMPLING),
            ("last", last, LAST),
            ("init", init, INITS),
        ):
            if value not in known:
                raise AnimegenError(
                    f"FewShotGenerator has no {option} '{value}': choose one of {', '.join(known)}."
                    + did_you_mean(str(value), known)
                )
        if inputs < 3 or blocks < 0 or len(filters) != len(FILTERS):
            raise AnimegenError(
                f"FewShotGenerator needs inputs >= 3, blocks >= 0 and {len(FILTERS)} filters, not {inputs}, {blocks}"
                f" and {len(filters)}: correct them."
            )
        self.inputs = inputs
        self._row_by_row = norm in ("batch", "none") and upsampling in ("folded", "nearest")
        f0, f1, f2, f3, f4, f5 = (scale_channels(channels, width) for channels in filters)
        self.conv0 = _down(inputs, f0, 7, 1, norm)
        self.conv1 = _down(f0, f1, 3, 2, norm)
        self.conv2 = _down(f1, f2, 3, 2, norm)
        self.blocks = nn.Sequential(*[_Block(f2, norm, second_norm) for _ in range(blocks)])
        self.up2 = _up(f2 + f2, f3, norm, upsampling)
        self.up1 = _up(f3 + f1, f4, norm, upsampling)
        self.conv11 = _last_convolution(f4 + f0 + inputs, f5, last)
        self.smooth = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(f5, f5, 3, padding=1),
            nn.ReLU(inplace=True),
            make_norm(norm, f5),
            nn.Conv2d(f5, f5, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.conv12 = nn.Conv2d(f5, 3, 1)
        if init == "normal":
            initialise(self, "normal")

    def forward(self, images: Tensor) -> Tensor:
        """Stylise frames (B, inputs, H, W) in [-1, 1].

        Raises:
            AnimegenError: if the sides are no multiples of 4, or there are too few or too many channels.
        """
        if images.shape[1] != self.inputs:
            raise AnimegenError(
                f"The generator was built for {self.inputs} input channels, but the frame and its guides have"
                f" {images.shape[1]}: set model.generator.inputs={images.shape[1]}."
            )
        require_multiple(images, self.factor)
        full = self.conv0(images)
        half = self.conv1(full)
        quarter = self.conv2(half)
        x = self.up2(torch.cat([self.blocks(quarter), quarter], 1))
        maps = [(x, 2), (half, 2), (full, 1), (images, 1)]
        if self.streams and not torch.is_grad_enabled():
            return in_strips(self._finish, maps, REACH)
        return self._finish(*(values for values, _ in maps))

    @property
    def streams(self) -> bool:
        """Whether the end of the network, where memory goes, is drawn strip by strip: if no layer of it needs more."""
        return not self.training and self._row_by_row

    def _finish(self, x: Tensor, half: Tensor, full: Tensor, images: Tensor) -> Tensor:
        """Draw the frame from the map at half size."""
        x = self.up1(torch.cat([x, half], 1))
        # Of one type and memory order, so that the 163 channels, the largest map of the network, are written once.
        x = self.smooth(self.conv11(torch.cat([x, full, as_like(images, full)], 1)))
        return torch.tanh(self.conv12(x))


class FoldedUpsampleConv(nn.Conv2d):
    """Nearest-neighbour doubling followed by a 3x3 convolution, as one transposed convolution.

    An output pixel sees a low-resolution pixel through one, two or four taps of the kernel, which always meet the
    same value: they are added up first. What is left is a 4x4 kernel of stride 2, that is 4 taps per output
    pixel instead of 9, with the same result also at the zero-padded border. The parameters stay those of the 3x3
    convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    @staticmethod
    def folded(weight: Tensor) -> Tensor:
        """Return the kernel (inputs, outputs, 4, 4) of the transposed convolution for one (outputs, inputs, 3, 3)."""
        # Tap k of the 4x4 kernel is the sum of those taps of the 3x3 kernel that fall onto the same low-resolution
        # pixel: along each axis [w2, w1 + w2, w0 + w1, w0].
        w0, w1, w2 = weight.unbind(2)
        w0, w1, w2 = torch.stack([w2, w1 + w2, w0 + w1, w0], 2).unbind(3)
        return torch.stack([w2, w1 + w2, w0 + w1, w0], 3).transpose(0, 1)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W) with another 3x3 kernel than one's own."""
        return F.conv_transpose2d(input, self.folded(weight), bias, stride=2, padding=1)


class PatchDiscriminator(nn.Module):
    """The discriminator of Texler et al. 2020: three 4x4 convolutions and one to logits, instance norm without affine.

    With the defaults 24,469 parameters; a logit sees 34 x 34 pixels, 32 x 32 pixels give 6 x 6 logits.

    Args:
        channels: of the first convolution; doubled twice.
        noise: standard deviation of normal noise added to its input while training.
        width: factor on the channel count (not rounded to a multiple of 8).
    """

    def __init__(self, channels: int = 12, noise: float = 0.0, width: float = 1.0) -> None:
        super().__init__()
        c = max(4, round(channels * width))
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Conv2d(3, c, 4, 2, 1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(c, 2 * c, 4, 2, 1),
            InstanceNorm(2 * c, affine=False),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(2 * c, 4 * c, 4, 1, 1),
            InstanceNorm(4 * c, affine=False),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(4 * c, 1, 4, 1, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, 1, h, w) of pictures (B, 3, H, W) in [-1, 1], sides of at least 16; higher = more real."""
        if self.training and self.noise > 0:
            images = images + self.noise * torch.randn_like(images)
        return self.layers(images)


def as_like(images: Tensor, other: Tensor) -> Tensor:
    """Return pictures (B,C,H,W) in the type and the memory order (NCHW or NHWC) of other maps."""
    nhwc = other.is_contiguous(memory_format=torch.channels_last)
    return images.to(other.dtype, memory_format=torch.channels_last if nhwc else torch.contiguous_format)


class _Block(nn.Module):
    """Residual block: ReLU before each convolution, norm after the first, nothing after the sum."""

    def __init__(self, channels: int, norm: str, second_norm: bool) -> None:
        super().__init__()
        self.layers = FoldingSequential(
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            make_norm(norm, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
            make_norm(norm if second_norm else "none", channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _down(inputs: int, outputs: int, kernel: int, stride: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return FoldingSequential(convolution, make_norm(norm, outputs), nn.LeakyReLU(SLOPE, inplace=True))


def _up(inputs: int, outputs: int, norm: str, upsampling: str) -> nn.Sequential:
    tail = (make_norm(norm, outputs), nn.ReLU(inplace=True))
    if upsampling == "folded":
        # Inside another, so that the state dict is that of the other ways.
        return FoldingSequential(nn.Identity(), FoldedUpsampleConv(inputs, outputs), *tail)
    align = True if upsampling == "bilinear" else None
    resize = nn.Upsample(scale_factor=2, mode=upsampling, align_corners=align)
    return FoldingSequential(resize, nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), *tail)


def _last_convolution(inputs: int, outputs: int, last: str) -> nn.Module:
    if last == "separable":
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False), nn.Conv2d(outputs, outputs, 7, padding=3, groups=outputs)
        )
    return nn.Conv2d(inputs, outputs, int(last), padding=int(last) // 2)


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return one of :data:`NORMS` for so many channels; instance norm has no affine parameters."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return InstanceNorm(channels, affine=False)
    return nn.GroupNorm(min(8, channels), channels) if norm == "group" else nn.Identity()
