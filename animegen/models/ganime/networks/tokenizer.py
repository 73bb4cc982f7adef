"""The tokenizer: images to a grid of codes and back, after VQGAN (taming-transformers) and GANime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.ganime.networks.blocks import (
    Downsample,
    ResBlock,
    SpatialAttention,
    Upsample,
    check_resample,
    norm,
)
from animegen.nn.conv import require_multiple, scale_channels
from animegen.nn.inbetween import IFNet
from animegen.nn.quantizer import Quantized, Quantizer

OUTPUTS = ("tanh", "linear")


class Tokenized(NamedTuple):
    """Output of the tokenizer.

    Attributes:
        image: (N,3,H,W), the reconstruction, float32, about [-1,1].
        quantized: the quantised vectors and their codes.
        encoded: (N,D,h,w), the output of the encoder, before quantisation.
    """

    image: Tensor
    quantized: Quantized
    encoded: Tensor


class TokenizerEncoder(nn.Module):
    """Convolution, levels of residual blocks with downsampling between them, residual block, attention, residual block.

    Args:
        widths: channels of the levels. The first has 1/``patch`` of the resolution, each further one half of the
            one before.
        latent: output channels.
        blocks: residual blocks per level.
        attention: indices of the levels in which each block is followed by attention.
        resample: see :func:`~animegen.models.ganime.networks.blocks.check_resample`.
        patch: side of the patches that the first convolution embeds; 1 for a 3x3 convolution at full resolution.
        first: output channels of the first convolution if ``patch`` is 1.
        **settings: ``groups``, ``eps`` and ``dropout`` of the blocks.
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
                layers.append(Downsample(widths[level - 1], resample))
            for number in range(blocks):
                inputs = (widths[level - 1] if level else first) if number == 0 else width
                layers.append(ResBlock(inputs, width, **settings))
                if level in attention:
                    layers.append(SpatialAttention(width, **plain))
        end = widths[-1]
        self.layers = nn.Sequential(*layers)
        self.middle = nn.Sequential(
            ResBlock(end, end, **settings), SpatialAttention(end, **plain), ResBlock(end, end, **settings)
        )
        self.last = nn.Sequential(norm(end, **plain), nn.SiLU(), nn.Conv2d(end, latent, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N,3,H,W) to (N,latent,h,w)."""
        return self.last(self.middle(self.layers(self.first(images))))


class TokenizerDecoder(nn.Module):
    """Mirrored encoder with one more residual block per level; takes the arguments of :class:`TokenizerEncoder`."""

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
            ResBlock(end, end, **settings), SpatialAttention(end, **plain), ResBlock(end, end, **settings)
        )
        layers: list[nn.Module] = []
        inputs = end
        for level, width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                layers.append(ResBlock(inputs, width, **settings))
                if level in attention:
                    layers.append(SpatialAttention(width, **plain))
                inputs = width
            if level:
                layers.append(Upsample(width, resample))
        self.layers = nn.Sequential(*layers)
        self.finish = nn.Sequential(norm(widths[0], **plain), nn.SiLU())
        self.last = nn.Conv2d(widths[0], 3 * patch * patch, 3, padding=1)
        self.patch = patch

    def forward(self, latent: Tensor) -> Tensor:
        """Map (N,latent,h,w) to images (N,3,H,W) of unlimited range."""
        x = self.last(self.finish(self.layers(self.middle(self.first(latent)))))
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x


class Tokenizer(nn.Module):
    """Autoencoder with a discrete latent: images to a grid of codes and back.

    A grid of a few dozen codes is too little for a decoder to reconstruct a drawing, but the neighbouring frames of the
    clip contain most of its content. The optional ``renderer`` redraws a decoded frame with the pixels of two given
    frames around it. Le Moing et al. (CCVS, 2021) give such context to the decoder. The renderer is trained together
    with the codes, which then learn to encode what the given frames do not show. The codes of a frame still depend on
    that frame alone.

    Args:
        channels: base width.
        multipliers: width of each level as a multiple of ``channels``; each level halves the resolution of the one
            before.
        blocks: residual blocks per level in the encoder; the decoder has one more.
        attention: indices of the levels with attention. There is always attention after the last level.
        latent: channels between encoder and quantiser; 1x1 convolutions map them to ``quantizer.dim`` and back.
        quantizer: settings of a :class:`~animegen.nn.quantizer.Quantizer`.
        resample: see :func:`~animegen.models.ganime.networks.blocks.check_resample`.
        output: ``tanh`` (GANime) or ``linear`` (taming-transformers; clamped except in training).
        patch: side of the patches of the first and last layer. 1 is as published; 2 skips the level at full
            resolution, which takes half of the computation.
        groups: groups of the norms.
        eps: epsilon of the norms. TorchGANime uses 6.1e-5 against NaN in half precision.
        dropout: dropout probability in the residual blocks.
        width: factor on all channel counts, which are rounded to multiples of 8.
        renderer: interpolation network with a guide of 9 channels: the decoded frame, and both given frames as decoded
            from their codes.

    Raises:
        AnimegenError: for settings that do not exist or cannot be combined.
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
                f"The tokenizer needs patch >= 1, blocks >= 1, at least one multiplier, and attention on levels from 0"
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
        self.encoder = TokenizerEncoder(widths, latent, first=scale_channels(channels, width), **settings)
        self.decoder = TokenizerDecoder(widths, latent, **settings)
        self.quantizer = Quantizer(**(dict(quantizer) if quantizer else {"dim": 128}))
        if self.quantizer.residual > 1:
            raise AnimegenError(
                "The transformer needs one code per position: set model.tokenizer.quantizer.residual=1."
            )
        self.to_codes = nn.Conv2d(latent, self.quantizer.dim, 1)
        self.from_codes = nn.Conv2d(self.quantizer.dim, latent, 1)
        self.renderer = renderer
        self.output = output
        self.cosine = bool((quantizer or {}).get("cosine", False)) and not self.quantizer.scalar
        #: Side of the square of pixels that one code represents.
        self.size_divisor = patch * 2 ** (len(multipliers) - 1)

    @property
    def codes(self) -> int:
        """Size of the codebook."""
        return self.quantizer.codes

    @property
    def last_layer(self) -> Tensor:
        """The weight of the last convolution, with respect to which the adaptive weight compares gradients."""
        return self.decoder.last.weight

    def load_pretrained(self, other: Tokenizer) -> None:
        """Load the weights of another tokenizer, including those of the renderer if both have one.

        Raises:
            RuntimeError: if it has another architecture.
        """
        state = other.state_dict()
        if self.renderer is None or other.renderer is None:
            state = {name: value for name, value in state.items() if not name.startswith("renderer.")}
            own = self.state_dict()
            state |= {name: value for name, value in own.items() if name.startswith("renderer.")}
        self.load_state_dict(state)

    def forward(self, images: Tensor) -> Tokenized:
        """Reconstruct images (N,3,H,W) in [-1,1]. In training mode this also updates the codebook."""
        encoded = self._encode(images)
        quantized = self.quantizer(encoded)
        return Tokenized(self._decode(quantized.values), quantized, encoded)

    def encode(self, images: Tensor) -> Tensor:
        """Return the codes, int64 (N,h,w), of images (N,3,H,W) in [-1,1]."""
        return self.quantizer(self._encode(images)).codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return images (N,3,H,W), float32 in [-1,1], for codes, int64 (N,h,w)."""
        return self._decode(self.quantizer.lookup(codes)).clamp(-1, 1)

    def decode_soft(self, probabilities: Tensor) -> Tensor:
        """Decode the expected code vectors of probabilities (N,h,w,codes) to images (N,3,H,W), float32.

        Differentiable. For one-hot probabilities it equals :meth:`decode` before clamping.
        """
        device = probabilities.device
        table = self.quantizer.lookup(torch.arange(self.codes, device=device).view(1, 1, -1))[0, :, 0]  # (D, codes)
        return self._decode(torch.einsum("nhwk,dk->ndhw", probabilities, table.to(probabilities.dtype)))

    def _encode(self, images: Tensor) -> Tensor:
        require_multiple(images, self.size_divisor)
        encoded = self.to_codes(self.encoder(images))
        # With cosine similarity only the direction counts; the commitment loss must not depend on the length.
        return F.normalize(encoded.float(), dim=1) if self.cosine else encoded

    def _decode(self, values: Tensor) -> Tensor:
        image = self.decoder(self.from_codes(values)).float()
        return torch.tanh(image) if self.output == "tanh" else image
