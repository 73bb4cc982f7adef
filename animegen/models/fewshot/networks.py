"""Networks of few-shot patch-based training: generator "J" and a small patch discriminator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.data.keyframes.carried import SLOT
from animegen.errors import AnimegenError, did_you_mean
from animegen.models.fewshot.choice import KeyChoice
from animegen.models.fewshot.fast import FoldingSequential, in_strips
from animegen.nn.conv import SLOPE, initialise, require_multiple, scale_channels
from animegen.nn.norm import InstanceNorm

#: Channels after conv0, conv1, conv2 (and in the residual blocks), up2, up1 and conv_11.
FILTERS = (32, 64, 128, 128, 128, 64)

NORMS = ("batch", "instance", "group", "none")
UPSAMPLING = ("folded", "nearest", "bilinear")
LAST = ("7", "5", "3", "separable")
INITS = ("torch", "normal")
#: Margin of the strips at the end of the generator, in rows: 1 of the upsampling, 3 and twice 1 of convolutions.
MARGIN = 6


class FewShotGenerator(nn.Module):
    """The generator of Texler et al. 2020: a U-Net with a skip connection from the input to its last convolution.

    3,267,523 parameters with the defaults (3,281,635 with one RGB guide). The 7x7 convolution ``conv11`` takes half of
    the computation. The receptive field is about 141 x 141 pixels. In eval mode no layer computes statistics of the
    whole image, so a generator that was trained on patches with batch norm can be applied to whole frames.

    Args:
        inputs: input channels: 3 of the frame and those of the guides.
        filters: see :data:`FILTERS`.
        blocks: residual blocks at a quarter of the resolution.
        norm: ``batch``, ``instance``, ``group`` (at most 8 groups) or ``none``.
        upsampling: ``nearest`` (nearest neighbour, 3x3 convolution), ``folded`` (the same function with 2.25 times less
            computation), or ``bilinear`` (aligned corners).
        last: kernel of ``conv11``: ``7``, ``5``, ``3``, or ``separable`` (1x1, then 7x7 depthwise).
        second_norm: another norm after the second convolution of each residual block.
        init: ``torch`` (PyTorch's default) or ``normal`` (N(0, 0.02)).
        width: factor on all channel counts.
        carried: number of carried key frames, the inputs after the frame, which are blended with what the network
            draws from frame and further guides, see :class:`~animegen.models.fewshot.choice.KeyChoice`.

    Maps (B, inputs, H, W) in [-1, 1] to (B, 3, H, W) in [-1, 1]; sides must be multiples of 4.

    Source: Texler et al., "Interactive Video Stylization Using Few-Shot Patch-Based Training", ACM TOG 39(4), 2020, and
    the configuration of its released code.

    Raises:
        AnimegenError: for a setting that does not exist.
    """

    size_divisor = 4

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
        carried: int = 0,
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
                    f"FewShotGenerator has no {option} '{value}': use one of {', '.join(known)}."
                    + did_you_mean(str(value), known)
                )
        least = 3 + SLOT * max(carried, 0)
        if inputs < least or blocks < 0 or carried < 0 or len(filters) != len(FILTERS):
            raise AnimegenError(
                f"FewShotGenerator needs carried >= 0, inputs >= {least}, blocks >= 0 and {len(FILTERS)} filters, not"
                f" {carried}, {inputs}, {blocks} and {len(filters)}: correct them."
            )
        self.inputs, self.carried = inputs, carried
        inputs -= SLOT * carried
        self._row_by_row = norm in ("batch", "none") and upsampling in ("folded", "nearest")
        f0, f1, f2, f3, f4, f5 = (scale_channels(channels, width) for channels in filters)
        self.conv0 = _down(inputs, f0, 7, 1, norm)
        self.conv1 = _down(f0, f1, 3, 2, norm)
        self.conv2 = _down(f1, f2, 3, 2, norm)
        self.blocks = nn.Sequential(*[_PreActivationBlock(f2, norm, second_norm) for _ in range(blocks)])
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
        self.choice = KeyChoice() if carried else None

    @overload
    def forward(self, images: Tensor) -> Tensor: ...

    @overload
    def forward(self, images: Tensor, parts: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, images: Tensor, parts: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Stylise frames (B, inputs, H, W) in [-1, 1].

        Args:
            images: frames and guides.
            parts: also return what the network draws, before it is blended with the carried key frames.

        Raises:
            AnimegenError: if the sides are not multiples of 4, or the number of channels is wrong.
        """
        if images.shape[1] != self.inputs:
            raise AnimegenError(
                f"The generator has {self.inputs} input channels, but the frame and its guides have"
                f" {images.shape[1]}: set model.generator.inputs={images.shape[1]}."
            )
        require_multiple(images, self.size_divisor)
        if self.choice is None:
            drawn = self._draw(images)
            return (drawn, drawn) if parts else drawn
        photo, keys, others = images.split([3, SLOT * self.carried, self.inputs - 3 - SLOT * self.carried], 1)
        drawn = self._draw(torch.cat([photo, others], 1))
        output = self.choice(photo, drawn, keys)
        return (output, drawn) if parts else output

    def _draw(self, images: Tensor) -> Tensor:
        """Draw from the frame and the guides that are no carried keys."""
        full = self.conv0(images)
        half = self.conv1(full)
        quarter = self.conv2(half)
        x = self.up2(torch.cat([self.blocks(quarter), quarter], 1))
        maps = [(x, 2), (half, 2), (full, 1), (images, 1)]
        if self.streams and not torch.is_grad_enabled():
            x = in_strips(self._finish, maps, MARGIN)
        else:
            x = self._finish(*(values for values, _ in maps))
        return torch.tanh(x)

    @property
    def streams(self) -> bool:
        """Whether the last layers, which need most memory, run in strips; norms over whole frames prevent it."""
        return not self.training and self._row_by_row

    def _finish(self, x: Tensor, half: Tensor, full: Tensor, images: Tensor) -> Tensor:
        """Compute the channels of the output from the maps at half and full resolution."""
        x = self.up1(torch.cat([x, half], 1))
        # In one dtype and memory format, so that the 163 channels, the largest map of the network, are copied once.
        x = self.smooth(self.conv11(torch.cat([x, full, as_like(images, full)], 1)))
        return self.conv12(x)


class FoldedUpsampleConv(nn.Conv2d):
    """Nearest-neighbour upsampling by 2 followed by a 3x3 convolution, as one transposed convolution.

    After nearest-neighbour upsampling, one, two or four taps of the kernel read the same low-resolution pixel. Their
    sums form a 4x4 kernel of stride 2 with 4 instead of 9 taps per output pixel and the same result, also at the
    zero-padded border. The parameters are those of the 3x3 convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=False)

    @staticmethod
    def folded(weight: Tensor) -> Tensor:
        """Return the kernel (inputs, outputs, 4, 4) of the transposed convolution for one (outputs, inputs, 3, 3)."""
        # Along each axis, the sums of the taps that read the same low-resolution pixel are
        # [w2, w1 + w2, w0 + w1, w0].
        w0, w1, w2 = weight.unbind(2)
        w0, w1, w2 = torch.stack([w2, w1 + w2, w0 + w1, w0], 2).unbind(3)
        return torch.stack([w2, w1 + w2, w0 + w1, w0], 3).transpose(0, 1)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, 2H, 2W) with a given 3x3 kernel."""
        return F.conv_transpose2d(input, self.folded(weight), bias, stride=2, padding=1)


class PatchDiscriminator(nn.Module):
    """The discriminator of Texler et al. 2020: four 4x4 convolutions, instance norm without affine parameters.

    24,469 parameters with the defaults. The receptive field of a logit is 34 x 34 pixels; an input of 32 x 32 pixels
    gives 6 x 6 logits.

    Args:
        channels: channels of the first convolution, doubled twice.
        noise: standard deviation of normal noise added to the input in training.
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
        """Map images (B, 3, H, W) in [-1, 1], sides of at least 16, to logits (B, 1, h, w); higher = more real."""
        if self.training and self.noise > 0:
            images = images + self.noise * torch.randn_like(images)
        return self.layers(images)


def as_like(images: Tensor, other: Tensor) -> Tensor:
    """Convert images (B,C,H,W) to the dtype and memory format (NCHW or NHWC) of other maps."""
    nhwc = other.is_contiguous(memory_format=torch.channels_last)
    return images.to(other.dtype, memory_format=torch.channels_last if nhwc else torch.contiguous_format)


class _PreActivationBlock(nn.Module):
    """Residual block with ReLU before each convolution, norm after the first, and no activation after the sum."""

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
        # The identity keeps the indices, and so the state dict, of the other modes.
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
    """Build one of :data:`NORMS`; instance norm has no affine parameters."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return InstanceNorm(channels, affine=False)
    return nn.GroupNorm(min(8, channels), channels) if norm == "group" else nn.Identity()
