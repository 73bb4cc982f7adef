"""The tokenizer: pictures to a grid of codes and back, after taming-transformers' VQGAN and GANime's version of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.ganime.networks.blocks import Attention, Down, ResBlock, Up, check_resample, norm
from animegen.models.interpolation.networks.flow import IFNet
from animegen.nn.conv import require_multiple, scale_channels
from animegen.nn.quantizer import Quantized, Quantizer

OUTPUTS = ("tanh", "linear")


class Tokenized(NamedTuple):
    """A picture that went through the tokenizer.

    Attributes:
        image: (N,3,H,W), float32, about [-1,1].
        quantized: what lies between encoder and decoder: vectors and codes.
        encoded: (N,D,h,w), what the encoder made, before it was quantised.
    """

    image: Tensor
    quantized: Quantized
    encoded: Tensor


class Encoder(nn.Module):
    """3x3 convolution, residual blocks and halvings, then residual block, attention, residual block.

    Args:
        widths: channels of the levels, the first at the size of the picture divided by ``patch``.
        latent: channels that it ends with.
        blocks: residual blocks per level.
        attention: numbers of the levels whose blocks are followed by attention.
        resample: see :func:`~animegen.models.ganime.networks.blocks.check_resample`.
        patch: side of the patches that become one place at the beginning.
        first: channels of the first convolution, where there are no patches.
        **settings: of the blocks: groups, eps, dropout.
    """

    def __init__(
        self,
        widths: Sequence[int],
        latent: int,
        blocks: int,
        attention: Sequence[int],
        resample: str,
        patch: int,
        first: int,
        **settings: Any,
    ) -> None:
        super().__init__()
        plain = {key: settings[key] for key in ("groups", "eps")}
        first = widths[0] if patch > 1 else first
        self.first = nn.Conv2d(3, first, patch, patch) if patch > 1 else nn.Conv2d(3, first, 3, padding=1)
        layers: list[nn.Module] = []
        for level, width in enumerate(widths):
            if level:
                layers.append(Down(widths[level - 1], resample))
            for number in range(blocks):
                inputs = (widths[level - 1] if level else first) if number == 0 else width
                layers.append(ResBlock(inputs, width, **settings))
                if level in attention:
                    layers.append(Attention(width, **plain))
        end = widths[-1]
        self.layers = nn.Sequential(*layers)
        self.middle = nn.Sequential(
            ResBlock(end, end, **settings), Attention(end, **plain), ResBlock(end, end, **settings)
        )
        self.last = nn.Sequential(norm(end, **plain), nn.SiLU(), nn.Conv2d(end, latent, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N,3,H,W) to (N,latent,h,w)."""
        return self.last(self.middle(self.layers(self.first(images))))


class Decoder(nn.Module):
    """The mirrored encoder, with one more residual block per level. It takes the arguments of :class:`Encoder`."""

    def __init__(
        self,
        widths: Sequence[int],
        latent: int,
        blocks: int,
        attention: Sequence[int],
        resample: str,
        patch: int,
        **settings: Any,
    ) -> None:
        super().__init__()
        plain = {key: settings[key] for key in ("groups", "eps")}
        end = widths[-1]
        self.first = nn.Conv2d(latent, end, 3, padding=1)
        self.middle = nn.Sequential(
            ResBlock(end, end, **settings), Attention(end, **plain), ResBlock(end, end, **settings)
        )
        layers: list[nn.Module] = []
        inputs = end
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                layers.append(ResBlock(inputs, width, **settings))
                if level in attention:
                    layers.append(Attention(width, **plain))
                inputs = width
            if level:
                layers.append(Up(width, resample))
        self.layers = nn.Sequential(*layers)
        self.finish = nn.Sequential(norm(widths[0], **plain), nn.SiLU())
        self.last = nn.Conv2d(widths[0], 3 * patch * patch, 3, padding=1)
        self.patch = patch

    def forward(self, latent: Tensor) -> Tensor:
        """Map (N,latent,h,w) to (N,3,H,W), without limits."""
        x = self.last(self.finish(self.layers(self.middle(self.first(latent)))))
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x


class Tokenizer(nn.Module):
    """Turns pictures into a grid of codes, and codes into pictures.

    Codes of a few bytes cannot hold what a drawing looks like, but other frames of the clip show it. A ``renderer``
    draws a coded frame anew with the pixels of two frames round it, after the context of CCVS (Le Moing et al. 2021),
    whose decoder looks at earlier frames; trained together, codes tell what these frames do not show. The codes of a
    frame depend on that frame alone, so that a transformer learns them as always.

    Args:
        channels: base width, that of the first convolution.
        multipliers: width of each level as a multiple of ``channels``; each level but the first has half the size.
        blocks: residual blocks per level (the decoder has one more).
        attention: numbers of the levels with attention; after the last level there is always some.
        latent: channels between encoder and quantiser, before a 1x1 convolution makes them ``quantizer.dim``.
        quantizer: settings of a :class:`~animegen.nn.quantizer.Quantizer`.
        resample: how maps change their size, see :func:`~animegen.models.ganime.networks.blocks.check_resample`.
        output: ``tanh`` (GANime) or ``linear`` (taming-transformers; pictures are clamped outside of training).
        patch: side of the patches that become one place at the beginning and come out of one at the end. 1 is
            as published; 2 leaves out the level at full size, where half of the work is.
        groups: of the norms.
        eps: of the norms; TorchGANime raised it to 6.1e-5 against NaN in half precision.
        dropout: in the residual blocks.
        width: factor on all channel counts (multiples of 8 remain).
        renderer: a network of the task in-between with a guide of 9 channels: the coded frame, and both frames round it
            as coded.

    Raises:
        AnimegenError: for choices that do not exist.
    """

    def __init__(
        self,
        channels: int = 32,
        multipliers: Sequence[int] = (2, 4, 8, 8),
        blocks: int = 1,
        attention: Sequence[int] = (3,),
        latent: int = 512,
        quantizer: Mapping[str, Any] | None = None,
        resample: str = "bilinear",
        output: str = "tanh",
        patch: int = 1,
        groups: int = 32,
        eps: float = 1e-6,
        dropout: float = 0.0,
        width: float = 1.0,
        renderer: IFNet | None = None,
    ) -> None:
        super().__init__()
        check_resample(resample)
        if output not in OUTPUTS:
            raise AnimegenError(
                f"The tokenizer has no output={output}: use {' or '.join(OUTPUTS)}.{did_you_mean(output, OUTPUTS)}"
            )
        if patch < 1 or blocks < 1 or not multipliers or not set(attention) <= set(range(len(multipliers))):
            raise AnimegenError(
                f"The tokenizer needs patch >= 1, blocks >= 1, one multiplier or more, and attention on levels from 0"
                f" to {len(multipliers) - 1}, not {patch}, {blocks}, {list(multipliers)} and {list(attention)}."
            )
        widths = [scale_channels(channels * multiplier, width) for multiplier in multipliers]
        latent = scale_channels(latent, width)
        settings: dict[str, Any] = {
            "blocks": blocks,
            "attention": list(attention),
            "resample": resample,
            "patch": patch,
            "groups": groups,
            "eps": eps,
            "dropout": dropout,
        }
        self.encoder = Encoder(widths, latent, first=scale_channels(channels, width), **settings)
        self.decoder = Decoder(widths, latent, **settings)
        self.quantizer = Quantizer(**(dict(quantizer) if quantizer else {"dim": 128}))
        if self.quantizer.residual > 1:
            raise AnimegenError("The transformer reads one code per place: set model.tokenizer.quantizer.residual=1.")
        self.before = nn.Conv2d(latent, self.quantizer.dim, 1)
        self.after = nn.Conv2d(self.quantizer.dim, latent, 1)
        self.renderer = renderer
        self.output = output
        self.cosine = bool((quantizer or {}).get("cosine", False)) and not self.quantizer.scalar
        #: Pixels per code in each direction; the sides of pictures are multiples of it.
        self.factor = patch * 2 ** (len(multipliers) - 1)

    @property
    def codes(self) -> int:
        """Size of the codebook."""
        return self.quantizer.codes

    @property
    def last_layer(self) -> Tensor:
        """The weight that draws the picture; gradients of losses are compared there."""
        return self.decoder.last.weight

    def take_over(self, other: Tokenizer) -> None:
        """Take the weights of another tokenizer, and those of its renderer if both have one.

        Raises:
            RuntimeError: if it is another network.
        """
        state = other.state_dict()
        if self.renderer is None or other.renderer is None:
            state = {name: value for name, value in state.items() if not name.startswith("renderer.")}
            own = self.state_dict()
            state |= {name: value for name, value in own.items() if name.startswith("renderer.")}
        self.load_state_dict(state)

    def forward(self, images: Tensor) -> Tokenized:
        """Map images (N,3,H,W) in [-1,1] to their reconstruction; in training mode the codebook moves."""
        encoded = self._encoded(images)
        quantized = self.quantizer(encoded)
        return Tokenized(self._drawn(quantized.values), quantized, encoded)

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes, int64 (N,h,w), of images (N,3,H,W) in [-1,1]."""
        return self.quantizer(self._encoded(images)).codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return pictures (N,3,H,W), float32 in [-1,1], of codes, int64 (N,h,w)."""
        return self._drawn(self.quantizer.lookup(codes)).clamp(-1, 1)

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """Return pictures (N,3,H,W), float32, of probabilities (N,h,w,codes): each place is the mean of its codes.

        Gradients reach the probabilities. One that is certain gives what :meth:`decode` gives, before it is clamped.
        """
        device = probabilities.device
        table = self.quantizer.lookup(torch.arange(self.codes, device=device).view(1, 1, -1))[0, :, 0]  # (D, codes)
        return self._drawn(torch.einsum("nhwk,dk->ndhw", probabilities, table.to(probabilities.dtype)))

    def _encoded(self, images: Tensor) -> Tensor:
        require_multiple(images, self.factor)
        encoded = self.before(self.encoder(images))
        # Only directions count then; without this the commitment loss would also pull at lengths.
        return F.normalize(encoded.float(), dim=1) if self.cosine else encoded

    def _drawn(self, values: Tensor) -> Tensor:
        image = self.decoder(self.after(values)).float()
        return torch.tanh(image) if self.output == "tanh" else image
