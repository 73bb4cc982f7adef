"""In-betweening through a latent: VAE and VQ-VAE, alone or as one half of a hybrid whose other half moves pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.interpolation.networks.base import Drawn, InbetweenNetwork, bump, group_norm
from animegen.models.interpolation.networks.flow import FlowPyramid, Moved
from animegen.models.interpolation.networks.fusion import make_fusion
from animegen.models.interpolation.networks.unet import ResBlock
from animegen.nn.attention import SelfAttention
from animegen.nn.conv import scale_channels
from animegen.nn.quantizer import Quantized, Quantizer
from animegen.nn.warp import backward_warp, resize_flow

SKIPS = ("none", "gated", "warped")
ORDERS = ("fuse", "quantise")

#: Beyond 32x32 places (frames of 256 pixels, if the latent has an eighth) attention stays within squares of 16x16.
ATTENTION_WINDOW = 16

#: Limits of the logarithm of the variance (as in latent diffusion's autoencoder): beyond them it says nothing.
_LOWEST, _HIGHEST = -30.0, 20.0


class Encoder(nn.Module):
    """Residual blocks and stride-2 convolutions, self-attention at the end; returns the maps of all levels.

    Args:
        channels: of each level, the first at full size.
        latent: channels of the latent.
        blocks: residual blocks per level.
        dropout: in the blocks.
    """

    def __init__(self, channels: Sequence[int], latent: int, blocks: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResBlock(c, c, dropout=dropout) for _ in range(blocks)) for c in channels
        )
        pairs = pairwise(channels)
        self.downs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairs)
        end = channels[-1]
        self.attention = SelfAttention(end, ATTENTION_WINDOW)
        self.last = nn.Sequential(group_norm(end), nn.SiLU(), nn.Conv2d(end, latent, 3, padding=1))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the latent (B,latent,h,w) of images (B,3,H,W), and the maps of the levels, fine to coarse."""
        x = self.first(images)
        maps: list[Tensor] = []
        for level, blocks in enumerate(self.levels):
            if level:
                x = self.downs[level - 1](x)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
            maps.append(x)
        return self.last(self.attention(x)), maps


class Decoder(nn.Module):
    """The encoder's mirror image; at every level but the coarsest it may be given maps to go by.

    A gate decides, place by place, how much of what it is given counts; without any, the latent has to do.

    Args:
        channels: of each level, the first at full size.
        latent: channels of the latent.
        blocks: residual blocks per level.
        dropout: in the blocks.
        outputs: channels of the picture.
        given: channels of the maps per level, fine to coarse, or ``None`` for a decoder that takes none.
    """

    def __init__(
        self,
        channels: Sequence[int],
        latent: int,
        blocks: int = 2,
        dropout: float = 0.0,
        outputs: int = 3,
        given: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        end = channels[-1]
        self.first = nn.Conv2d(latent, end, 3, padding=1)
        self.attention = SelfAttention(end, ATTENTION_WINDOW)
        self.levels = nn.ModuleList(
            nn.ModuleList(ResBlock(c, c, dropout=dropout) for _ in range(blocks)) for c in reversed(channels)
        )
        pairs = list(pairwise(channels))
        self.ups = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(pairs))
        self.bring: nn.ModuleList | None = None
        self.gate: nn.ModuleList | None = None
        if given is not None:
            sizes = list(reversed(list(zip(channels[:-1], given, strict=True))))
            self.bring = nn.ModuleList(nn.Conv2d(g, c, 1) for c, g in sizes)
            self.gate = nn.ModuleList(nn.Conv2d(c + g, c, 1) for c, g in sizes)
        self.last = nn.Sequential(group_norm(channels[0]), nn.SiLU(), nn.Conv2d(channels[0], outputs, 3, padding=1))

    def forward(self, latent: Tensor, given: Sequence[Tensor] | None = None) -> Tensor:
        """Map the latent (B,latent,h,w), and maps of the levels, fine to coarse, to (B,outputs,H,W)."""
        x = self.attention(self.first(latent))
        for number, blocks in enumerate(self.levels):
            if number:
                x = self.ups[number - 1](F.interpolate(x, scale_factor=2, mode="nearest"))
                if given is not None:
                    assert self.bring is not None
                    assert self.gate is not None
                    skip = given[len(self.levels) - 1 - number]
                    share = torch.sigmoid(self.gate[number - 1](torch.cat([x, skip], 1)))
                    x = x + share * self.bring[number - 1](skip)
            for block in blocks:  # type: ignore[attr-defined]
                x = block(x)
        return self.last(x)


class LatentInterpolator(InbetweenNetwork):
    """Encode both frames, put their latents together at time t, decode.

    With ``skip=none`` everything passes through the latent: the classic VAE or VQ-VAE, which draws softly and fades
    where things move. ``gated`` hands the decoder the blended maps of the encoder as well. ``warped`` is the hybrid: a
    flow moves maps and frames to t, the decoder goes by them, and where its mask says so its picture takes the place
    of the moved frames (what was hidden, lines that the warp has softened).

    Extra values: ``latent`` (B,Z,h,w), fused, no gradient to the encoder; VAE: ``mean`` and ``logvar`` (2B,Z,h,w)
    of both frames; VQ: ``encoded`` and ``nearest`` (N,Z,h,w), what was quantised and the codes' vectors, and ``codes``;
    warped: ``merged``, ``flow`` and ``mask`` as in IFNet, and ``share`` (B,1,H,W), how much of the decoder's picture
    counts. Computed when a term reads them: ``reconstruction`` (B,3,H,W), the truth through encoder, latent and decoder
    alone; ``latent_truth``, the truth's latent.

    Args:
        channels: of the levels at width 1; the latent has 1 / 2^(levels - 1) of the size.
        latent: channels of the latent.
        blocks: residual blocks per level.
        dropout: in the blocks.
        quantizer: settings of a :class:`~animegen.nn.quantizer.Quantizer` (without ``dim``) makes it a VQ-VAE; ``None``
            is the VAE.
        order: VQ only: ``fuse`` the latents and quantise the result, or ``quantise`` both and fuse them.
        fusion: see :func:`~animegen.models.interpolation.networks.fusion.make_fusion`.
        skip: ``none``, ``gated`` or ``warped``.
        flow: ``warped`` only: settings of the :class:`~animegen.models.interpolation.networks.flow.FlowPyramid`.
        width: factor on all channel counts but the latent's.

    Raises:
        AnimegenError: for options that do not exist or do not go together.
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
    ) -> None:
        super().__init__()
        for what, value, known in (("skip", skip, SKIPS), ("order", order, ORDERS)):
            if value not in known:
                raise AnimegenError(
                    f"The latent in-betweener has no {what} '{value}': choose one of {', '.join(known)}."
                    + did_you_mean(value, known)
                )
        if (flow is not None) != (skip == "warped"):
            raise AnimegenError("The flow belongs to skip=warped: give it settings there, and flow=null elsewhere.")
        sizes = [scale_channels(c, width) for c in channels]
        self.skip, self.order, self.latent = skip, order, latent
        self.encoder = Encoder(sizes, latent if quantizer is not None else 2 * latent, blocks, dropout)
        given = {"none": None, "gated": [2 * c for c in sizes[:-1]], "warped": sizes[:-1]}[skip]
        # The hybrid's decoder also draws where its picture counts.
        self.decoder = Decoder(sizes, latent, blocks, dropout, 4 if skip == "warped" else 3, given)
        self.quantizer = Quantizer(latent, **quantizer) if quantizer is not None else None
        self.fusion = make_fusion(fusion, latent, sizes[-1])
        self.pyramid = FlowPyramid(**flow, width=width) if flow is not None else None
        self.factor = max(2 ** (len(sizes) - 1), self.pyramid.factor if self.pyramid else 1)
        if skip == "warped":
            # Begin with the moved frames: the picture counts for little (sigmoid(-3) = 5 %) until it has learned to
            # help.
            last = self.decoder.last[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            with torch.no_grad():
                last.weight[3:] = 0
                last.bias[3:] = -3

    def encode_pair(self, first: Tensor, last: Tensor) -> dict[str, Any]:
        """Encode both frames in one pass; a VAE draws its latents here (its means, unless training)."""
        state = super().encode_pair(first, last)
        found, maps = self.encoder(torch.cat([first, last]))
        latents, extra = self._posterior(found)
        if self.quantizer is not None and self.order == "quantise":
            latents, extra = self._quantised(latents)
        state |= {"latents": latents.chunk(2), "maps": [m.chunk(2) for m in maps[:-1]], "extra": extra}
        if self.pyramid is not None:
            state["encoded"] = self.pyramid.encode(first, last)
        return state

    def synthesize(self, state: dict[str, Any], t: Tensor) -> Drawn:
        """Draw the frames at time ``t`` (B,)."""
        latent = self.fusion(*state["latents"], t)
        extra = {**state["extra"], "latent": latent}
        if torch.is_grad_enabled():
            # What is between is duller than the truth, so an encoder asked to come near to its own (constant) truth
            # scales everything up, the truth too, without end. So this term teaches the fusion alone.
            extra["latent"] = self.fusion(*(end.detach() for end in state["latents"]), t)
        if self.quantizer is not None and self.order == "fuse":
            latent, more = self._quantised(latent)
            extra |= more
        if self.skip == "none":
            return Drawn(torch.tanh(self.decoder(latent)), extra)
        share = t.to(latent.dtype).view(-1, 1, 1, 1)
        if self.pyramid is None:
            given = [torch.cat([(1 - share) * a, share * b], 1) for a, b in state["maps"]]
            return Drawn(torch.tanh(self.decoder(latent, given)), extra)
        moved = self.pyramid(state["encoded"], t)
        drawn = self.decoder(latent, [_moved_maps(a, b, moved) for a, b in state["maps"]])
        share = bump(t, drawn) * torch.sigmoid(drawn[:, 3:])
        image = torch.lerp(moved.merged, torch.tanh(drawn[:, :3]).to(moved.merged.dtype), share.to(moved.merged.dtype))
        flow = {"merged": moved.merged, "flow": moved.flow, "mask": moved.mask, "share": share}
        return Drawn(image, {**extra, **flow})

    def entries(self, drawn: Drawn, truth: Tensor) -> dict[str, Callable[[], Any]]:
        """Return what needs the truth: its reconstruction, and its latent (a constant for others to come near to)."""
        return {"reconstruction": lambda: self.reconstruct(truth), "latent_truth": lambda: self._latent_of(truth)}

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return images (B,3,H,W) as they come through encoder, latent and decoder alone."""
        latents, _ = self._posterior(self.encoder(images)[0])
        if self.quantizer is not None:
            latents = self.quantizer(latents).values
        return torch.tanh(self.decoder(latents)[:, :3])

    @torch.no_grad()
    def _latent_of(self, images: Tensor) -> Tensor:
        return self.encoder(images)[0][:, : self.latent]

    def _posterior(self, found: Tensor) -> tuple[Tensor, dict[str, Any]]:
        if self.quantizer is not None:
            return found, {}
        mean, logvar = found.chunk(2, 1)
        logvar = logvar.float().clamp(_LOWEST, _HIGHEST)
        latents = mean
        if self.training:
            latents = mean + (0.5 * logvar).exp().to(mean.dtype) * torch.randn_like(mean)
        return latents, {"mean": mean, "logvar": logvar}

    def _quantised(self, latents: Tensor) -> tuple[Tensor, dict[str, Any]]:
        assert self.quantizer is not None
        found: Quantized = self.quantizer(latents)
        return found.values, {"encoded": latents, "nearest": found.nearest, "codes": found.codes}


def _moved_maps(first: Tensor, last: Tensor, moved: Moved) -> Tensor:
    """Return the encoder's maps (B,C,h,w) of both frames, moved to t and put together as the frames were."""
    height, width = first.shape[-2:]
    to_first, to_last = (resize_flow(f, height, width) for f in moved.flow.split(2, 1))
    mask = F.interpolate(moved.mask, (height, width), mode="bilinear", align_corners=False).to(first.dtype)
    return mask * backward_warp(first, to_first) + (1 - mask) * backward_warp(last, to_last)
