"""Discriminators: networks that judge how real each patch of a picture looks."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from animegen.nn.conv import SLOPE, initialise, scale_channels
from animegen.nn.norm import make_norm
from animegen.nn.spectral import spectral_norm as normalise_spectrally


class PatchGAN(nn.Module):
    """The patch discriminator of AnimeGAN v1 and v2.

    3x3 convolutions without bias, zero padding, leaky ReLU 0.2, weights N(0, 0.02). Per level one convolution of
    stride 2 and one of stride 1; the norm follows those of stride 1 except the first and the last. With the defaults:
    1,128,800 parameters, logits of H/4 x W/4, each of which sees 37 x 37 pixels.

    All norms are per sample, so the logits of a joined batch equal those of its parts; join what is judged in one
    update and run the network once.

    Args:
        channels: base width; the first convolution has half of it.
        downs: number of levels, each halving height and width.
        norm: ``instance`` (v1), ``layer`` (v2), ``lade``, or ``None``.
        spectral_norm: divide each convolution's weight by its largest singular value.
        dropout: probability with which whole channels are dropped after each activation but the first and last.
        width: factor on all channel counts.

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
    ) -> None:
        super().__init__()
        self.factor = 2**downs
        sizes = [scale_channels(channels * 2**level / 2, width) for level in range(downs + 2)]
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def add(name: str, inputs: int, outputs: int, stride: int, norm: str | None, dropout: float) -> None:
            layers[name] = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
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
        layers["logits"] = nn.Conv2d(inputs, 1, 3, padding=1, bias=False)
        self.layers = nn.Sequential(layers)

        initialise(self, "normal")
        if spectral_norm:
            for layer in self.layers:
                if isinstance(layer, nn.Conv2d):
                    normalise_spectrally(layer)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to logits (B,1,H/2^downs,W/2^downs), rounded up; higher = more real."""
        return self.layers(images)
