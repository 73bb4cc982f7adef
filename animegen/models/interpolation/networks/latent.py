"""Frame interpolation in a latent space: VAE and VQ-VAE, alone or combined with a flow (hybrid)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.interpolation.networks.fusion import make_fusion
from animegen.nn.attention import SelfAttention
from animegen.nn.conv import scale_channels
from animegen.nn.inbetween.base import InbetweenOutput, bump, group_norm
from animegen.nn.inbetween.flow import FlowPyramid, WarpedPair
from animegen.nn.inbetween.prior import PriorNetwork
from animegen.nn.inbetween.unet import FiLMResBlock
from animegen.nn.quantizer import Quantized, Quantizer
from animegen.nn.warp import backward_warp, resize_flow

SKIPS = ("none", "gated", "warped")
ORDERS = ("fuse", "quantise")

#: Maps of more than 32x32 positions (frames of 256 pixels at 1/8 resolution) use attention within windows of 16x16.
ATTENTION_WINDOW = 16

#: Limits of the log variance, as in the autoencoder of latent diffusion.
_LOWEST, _HIGHEST = -30.0, 20.0


class LatentEncoder(nn.Module):
    """Residual blocks and stride-2 convolutions, followed by self-attention; returns the feature maps of all levels.

    Args:
        channels: channels of each level; the first has full resolution.
        latent: channels of the latent.
        blocks: residual blocks per level.
        dropout: dropout probability in the residual blocks.
    """

    def __init__(self, channels: Sequence[int], latent: int, blocks: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(FiLMResBlock(c, c, dropout=dropout) for _ in range(blocks)) for c in channels
        )
        pairs = pairwise(channels)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        end = channels[-1]
        self.attention = SelfAttention(end, ATTENTION_WINDOW)
        self.last = nn.Sequential(group_norm(end), nn.SiLU(), nn.Conv2d(end, latent, 3, padding=1))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the latent (B,latent,h,w) of images (B,3,H,W), and the feature maps of the levels, fine to coarse."""
        x = self.first(images)
        maps: list[Tensor] = []
        for level, blocks in enumerate(self.levels):
            if level:
                x = self.downs[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
            maps.append(x)
        return self.last(self.attention(x)), maps


class LatentDecoder(nn.Module):
    """Mirror image of :class:`LatentEncoder`, optionally with gated skip connections at all levels but the coarsest.

    Args:
        channels: channels of each level; the first has full resolution.
        latent: channels of the latent.
        blocks: residual blocks per level.
        dropout: dropout probability in the residual blocks.
        outputs: output channels.
        skips: channels of the skip maps per level, fine to coarse; ``None`` for a decoder without skip connections.
    """

    def __init__(
        self,
        channels: Sequence[int],
        latent: int,
        blocks: int = 2,
        dropout: float = 0.0,
        outputs: int = 3,
        skips: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        end = channels[-1]
        self.first = nn.Conv2d(latent, end, 3, padding=1)
        self.attention = SelfAttention(end, ATTENTION_WINDOW)
        self.levels = nn.ModuleList(
            nn.ModuleList(FiLMResBlock(c, c, dropout=dropout) for _ in range(blocks)) for c in reversed(channels)
        )
        pairs = list(pairwise(channels))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(pairs))
        self.skip: nn.ModuleList | None = None
        self.gate: nn.ModuleList | None = None
        if skips is not None:
            sizes = list(reversed(list(zip(channels[:-1], skips, strict=True))))
            self.skip = nn.ModuleList(nn.Conv2d(g, c, 1) for c, g in sizes)
            self.gate = nn.ModuleList(nn.Conv2d(c + g, c, 1) for c, g in sizes)
        self.last = nn.Sequential(group_norm(channels[0]), nn.SiLU(), nn.Conv2d(channels[0], outputs, 3, padding=1))

    def forward(self, latent: Tensor, skips: Sequence[Tensor] | None = None) -> Tensor:
        """Map the latent (B,latent,h,w), and skip maps of the levels, fine to coarse, to (B,outputs,H,W)."""
        x = self.attention(self.first(latent))
        for number, blocks in enumerate(self.levels):
            if number:
                x = self.ups[number - 1](F.interpolate(x, scale_factor=2, mode="nearest"))
                if skips is not None:
                    assert self.skip is not None
                    assert self.gate is not None
                    skip = skips[len(self.levels) - 1 - number]
                    gate = torch.sigmoid(self.gate[number - 1](torch.cat([x, skip], 1)))
                    x = x + gate * self.skip[number - 1](skip)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
        return self.last(x)


class LatentInterpolator(PriorNetwork):
    """Encode both frames, fuse their latents at time t, and decode.

    ==========  ==============================================================================================
    ``skip``    connections between encoder and decoder
    ==========  ==============================================================================================
    ``none``    the latent only: VAE or VQ-VAE. Outputs are blurred, and moving objects fade
    ``gated``   gated skip connections with the blended feature maps of both frames
    ``warped``  hybrid: a flow warps feature maps and frames to t. The decoder reads the warped feature maps and
                predicts an image and a mask; the mask selects where its image replaces the warped frames, such
                as in disoccluded regions
    ==========  ==============================================================================================

    Extra values: ``latent`` (B,Z,h,w), the fused latent, without gradient to the encoder. VAE: ``mean`` and ``logvar``
    (2B,Z,h,w) of both frames. VQ-VAE: ``encoded`` and ``nearest`` (N,Z,h,w), the latents before quantisation and their
    code vectors, and ``codes``. Hybrid: ``merged``, ``flow`` and ``mask`` as in
    :class:`~animegen.nn.inbetween.flow.IFNet`, and ``share`` (B,1,H,W), the weight of the decoder's image.
    Evaluated only if a term reads them: ``reconstruction`` (B,3,H,W), the ground truth after encoder, latent and
    decoder, without skips; ``latent_truth``, the latent of the ground truth.

    Args:
        channels: channels of the levels at width 1. The latent has 1 / 2^(levels - 1) of the resolution.
        latent: channels of the latent.
        blocks: residual blocks per level.
        dropout: dropout probability in the residual blocks.
        quantizer: settings of a :class:`~animegen.nn.quantizer.Quantizer` (without ``dim``) for a VQ-VAE; ``None`` for
            a VAE.
        order: VQ-VAE only: ``fuse`` fuses the latents and quantises the result, ``quantise`` quantises both and fuses
            them.
        fusion: see :func:`~animegen.models.interpolation.networks.fusion.make_fusion`.
        skip: ``none``, ``gated`` or ``warped``, see above.
        prior: ``skip=warped`` only, see :class:`~animegen.nn.inbetween.prior.PriorNetwork`.
        prior_dropout: see there.
        flow: ``skip=warped`` only: settings of the :class:`~animegen.nn.inbetween.flow.FlowPyramid`.
        width: factor on all channel counts except that of the latent.

    Raises:
        AnimegenError: for options that do not exist or cannot be combined.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 256),
        latent: int = 16,
        blocks: int = 2,
        dropout: float = 0.0,
        quantizer: dict[str, Any] | None = None,
        order: str = "fuse",
        fusion: str = "conv",
        skip: str = "none",
        flow: dict[str, Any] | None = None,
        width: float = 1.0,
        prior: str = "none",
        prior_dropout: float = 0.1,
    ) -> None:
        super().__init__(prior, prior_dropout)
        if prior != "none" and skip != "warped":
            raise AnimegenError(f"Only skip=warped has a flow to start from: set prior=none, not {prior}.")
        for what, value, known in (("skip", skip, SKIPS), ("order", order, ORDERS)):
            if value not in known:
                raise AnimegenError(
                    f"LatentInterpolator has no {what} '{value}': use one of {', '.join(known)}."
                    + did_you_mean(value, known)
                )
        if (flow is not None) != (skip == "warped"):
            raise AnimegenError(
                "skip=warped needs the settings of a flow, and only skip=warped: set flow=null otherwise."
            )
        sizes = [scale_channels(c, width) for c in channels]
        self.skip, self.order, self.latent = skip, order, latent
        self.encoder = LatentEncoder(sizes, latent if quantizer is not None else 2 * latent, blocks, dropout)
        skips = {"none": None, "gated": [2 * c for c in sizes[:-1]], "warped": sizes[:-1]}[skip]
        # The decoder of the hybrid also predicts the mask.
        self.decoder = LatentDecoder(sizes, latent, blocks, dropout, 4 if skip == "warped" else 3, skips)
        self.quantizer = Quantizer(latent, **quantizer) if quantizer is not None else None
        self.fusion = make_fusion(fusion, latent, sizes[-1])
        self.pyramid = FlowPyramid(**flow, width=width, prior=prior != "none") if flow is not None else None
        self.size_divisor = max(2 ** (len(sizes) - 1), self.pyramid.size_divisor if self.pyramid else 1)
        if skip == "warped":
            # Start with the warped frames: the weight of the decoder's image is sigmoid(-3) = 5 % before training.
            last = self.decoder.last[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            with torch.no_grad():
                last.weight[3:] = 0
                last.bias[3:] = -3

    def encode_pair(self, first: Tensor, last: Tensor, *prior: Tensor | None, **named: Tensor | None) -> dict[str, Any]:
        """Encode both frames in one pass; a VAE samples its latents here in training mode, else it uses the means."""
        state = super().encode_pair(first, last, *prior, **named)
        encoded, maps = self.encoder(torch.cat([first, last]))
        latents, extra = self._posterior(encoded)
        if self.quantizer is not None and self.order == "quantise":
            latents, extra = self._quantised(latents)
        state |= {"latents": latents.chunk(2), "maps": [m.chunk(2) for m in maps[:-1]], "extra": extra}
        if self.pyramid is not None:
            state["encoded"] = self.pyramid.encode(first, last)
        return state

    def synthesize(self, state: dict[str, Any], t: Tensor) -> InbetweenOutput:
        """Return the frames at time ``t`` (B,)."""
        latent = self.fusion(*state["latents"], t)
        extra = {**state["extra"], "latent": latent}
        if torch.is_grad_enabled():
            # Interpolated latents have a smaller norm than those of real frames. With gradients to the encoder, a term
            # that pulls them towards `latent_truth` would make it scale up all latents without bound. So terms on this
            # value train the fusion only.
            extra["latent"] = self.fusion(*(end.detach() for end in state["latents"]), t)
        if self.quantizer is not None and self.order == "fuse":
            latent, more = self._quantised(latent)
            extra |= more
        if self.skip == "none":
            return InbetweenOutput(torch.tanh(self.decoder(latent)), extra)
        weight = t.to(latent.dtype).view(-1, 1, 1, 1)
        if self.pyramid is None:
            skips = [torch.cat([(1 - weight) * a, weight * b], 1) for a, b in state["maps"]]
            return InbetweenOutput(torch.tanh(self.decoder(latent, skips)), extra)
        prior = state["prior"] if self.pyramid.prior else None
        warped = self.pyramid(state["encoded"], t, prior=prior)
        decoded = self.decoder(latent, [_warped_maps(a, b, warped) for a, b in state["maps"]])
        share = bump(t, decoded) * torch.sigmoid(decoded[:, 3:])
        dtype = warped.merged.dtype
        image = torch.lerp(warped.merged, torch.tanh(decoded[:, :3]).to(dtype), share.to(dtype))
        flow = {"merged": warped.merged, "flow": warped.flow, "mask": warped.mask, "share": share}
        return InbetweenOutput(image, {**extra, **flow})

    def entries(self, output: InbetweenOutput, truth: Tensor) -> dict[str, Callable[[], Any]]:
        """Return the reconstruction of the ground truth, and its latent without gradient."""
        return {"reconstruction": lambda: self.reconstruct(truth), "latent_truth": lambda: self._latent_of(truth)}

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode and decode images (B,3,H,W), without skip connections."""
        latents, _ = self._posterior(self.encoder(images)[0])
        if self.quantizer is not None:
            latents = self.quantizer(latents).values
        return torch.tanh(self.decoder(latents)[:, :3])

    @torch.no_grad()
    def _latent_of(self, images: Tensor) -> Tensor:
        return self.encoder(images)[0][:, : self.latent]

    def _posterior(self, encoded: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if self.quantizer is not None:
            return encoded, {}
        mean, logvar = encoded.chunk(2, 1)
        logvar = logvar.float().clamp(_LOWEST, _HIGHEST)
        latents = mean
        if self.training:
            latents = mean + (0.5 * logvar).exp().to(mean.dtype) * torch.randn_like(mean)
        return latents, {"mean": mean, "logvar": logvar}

    def _quantised(self, latents: Tensor) -> tuple[Tensor, dict[str, Any]]:
        assert self.quantizer is not None
        quantized: Quantized = self.quantizer(latents)
        return quantized.values, {"encoded": latents, "nearest": quantized.nearest, "codes": quantized.codes}


def _warped_maps(first: Tensor, last: Tensor, warped: WarpedPair) -> Tensor:
    """Warp and merge the feature maps (B,C,h,w) of both frames in the same way as the frames."""
    height, width = first.shape[-2:]
    to_first, to_last = (resize_flow(f, height, width) for f in warped.flow.split(2, 1))
    mask = F.interpolate(warped.mask, (height, width), mode="bilinear", align_corners=False).to(first.dtype)
    return mask * backward_warp(first, to_first) + (1 - mask) * backward_warp(last, to_last)
