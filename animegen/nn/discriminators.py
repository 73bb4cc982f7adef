"""Patch discriminators for images."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.attention import SelfAttention
from animegen.nn.conv import SLOPE, initialise, scale_channels
from animegen.nn.norm import make_norm
from animegen.nn.spectral import spectral_norm as normalise_spectrally


class PatchGAN(nn.Module):
    """The patch discriminator of AnimeGAN v1 and v2.

    3x3 convolutions without bias, zero padding, leaky ReLU 0.2, weights N(0, 0.02). Each level has a convolution of
    stride 2 and one of stride 1; the norm follows those of stride 1 except the first and the last. With the defaults:
    1,128,800 parameters, H/4 x W/4 logits, a receptive field of 37 x 37 pixels.

    All norms are per sample, so that batches can be concatenated and evaluated in one pass.

    Args:
        channels: base width; the first convolution has half of it.
        downs: number of levels, each of which halves height and width.
        norm: ``instance`` (v1), ``layer`` (v2), ``lade``, or ``None``.
        spectral_norm: divide each convolution's weight by its largest singular value.
        dropout: probability of dropping whole channels after each activation but the first and last.
        width: factor on all channel counts.
        bias: add biases to the convolutions; with biases and without spectral norm this is CartoonGAN's discriminator.
        noise: standard deviation of Gaussian noise added to all images in training ("instance noise": Sonderby et
            al. 2017).

    Source: the released code of AnimeGAN and AnimeGANv2 (``n_dis=3`` there counts the first convolution).
    """

    def __init__(
        self,
        channels: int = 64,
        downs: int = 2,
        norm: str | None = "instance",
        spectral_norm: bool = True,
        dropout: float = 0.0,
        width: float = 1.0,
        bias: bool = False,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.size_divisor = 2**downs
        self.noise = noise
        sizes = [scale_channels(channels * 2**level / 2, width) for level in range(downs + 2)]
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def add(name: str, inputs: int, outputs: int, stride: int, norm: str | None, dropout: float) -> None:
            layers[name] = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
            if norm is not None:
                layers[f"{name}_norm"] = make_norm(norm, outputs)
            layers[f"{name}_act"] = nn.LeakyReLU(SLOPE, inplace=True)
            if dropout:
                layers[f"{name}_drop"] = nn.Dropout2d(dropout)

        add("first", 3, sizes[0], 1, None, 0.0)
        inputs = sizes[0]
        for level in range(1, downs + 1):
            add(f"down{level}", inputs, sizes[level], 2, None, dropout)
            add(f"conv{level}", sizes[level], sizes[level + 1], 1, norm, dropout)
            inputs = sizes[level + 1]
        add("last", inputs, inputs, 1, norm, dropout)
        layers["logits"] = nn.Conv2d(inputs, 1, 3, padding=1, bias=bias)
        self.layers = nn.Sequential(layers)

        initialise(self, "normal")
        if spectral_norm:
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    normalise_spectrally(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to logits (B,1,H/2^downs,W/2^downs), rounded up; higher = more real."""
        if self.noise and self.training:
            images = images + self.noise * torch.randn_like(images)
        return self.layers(images)


class MultiscalePatchGAN(nn.Module):
    """Patch discriminators at several scales, each at half the resolution of the one before (pix2pixHD).

    The coarser logits are repeated to the size of the finest, so that a mean over all logits gives all scales equal
    weight.

    Args:
        scales: number of discriminators, 3 in pix2pixHD (Wang et al. 2018).
        settings: arguments of each :class:`PatchGAN`.
    """

    def __init__(self, scales: int = 3, **settings: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList(PatchGAN(**settings) for _ in range(scales))
        self.size_divisor = 2 ** (scales - 1) * self.parts[0].size_divisor

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to logits (B,scales,h,w), h and w of the finest scale; higher = more real."""
        logits: list[Tensor] = []
        for part in self.parts:
            if logits:
                images = F.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False)
            found = part(images)
            logits.append(found if not logits else F.interpolate(found, logits[0].shape[-2:], mode="nearest"))
        return torch.cat(logits, 1)


class _ResBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, average pooling, no norm."""

    def __init__(self, inputs: int, outputs: int, first: bool = False, down: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.first, self.down = first, down

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else F.leaky_relu(x, SLOPE))
        y = self.conv2(F.leaky_relu_(y, SLOPE))
        if self.down:  # 1x1 convolution and pooling commute; pooling first is cheaper
            return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))
        return y + self.shortcut(x)


class SNResNetPatch(nn.Module):
    """Residual patch discriminator with spectral norm in all layers and self-attention at 1/8 of the resolution.

    Four downsampling blocks of 64, 128, 256 and 512 channels and one more of 512, after SNGAN (Miyato et al. 2018) and
    SAGAN (Zhang et al. 2019). H/16 x W/16 logits, 9.7 million parameters.

    Args:
        condition: number of channels of the condition, such as the neighbouring frames (6) and their time (1);
            0: unconditional.
        attention: include the attention layer.
        width: factor on all channel counts.
    """

    size_divisor = 16

    def __init__(self, condition: int = 0, attention: bool = True, width: float = 1.0) -> None:
        super().__init__()
        self.condition = condition
        c64, c128, c256, c512 = (scale_channels(channels, width) for channels in (64, 128, 256, 512))
        self.layers = nn.Sequential(
            _ResBlock(3 + condition, c64, first=True),
            _ResBlock(c64, c128),
            _ResBlock(c128, c256),
            SelfAttention(c256, window=32) if attention else nn.Identity(),
            _ResBlock(c256, c512),
            _ResBlock(c512, c512, down=False),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(c512, 1, 3, padding=1),
        )
        initialise(self, "xavier")
        for layer in list(self.modules()):
            if isinstance(layer, nn.Conv2d):
                normalise_spectrally(layer)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return logits (B,1,H/16,W/16); higher = more real.

        Args:
            images: (B,3,H,W) in [-1,1], sides of at least 16.
            condition: (B,condition,H,W).

        Raises:
            AnimegenError: if the condition has the wrong number of channels.
        """
        channels = 0 if condition is None else condition.shape[1]
        if channels != self.condition:
            raise AnimegenError(
                f"The discriminator was built for a condition of {self.condition} channels, not {channels}:"
                f" set its condition={channels}."
            )
        return self.layers(images if condition is None else torch.cat([images, condition], 1))
