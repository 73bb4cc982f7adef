"""The generator: stylises clips frame by frame, with a recurrent memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.temporal.networks.composition import COMPOSITIONS, Composition
from animegen.models.temporal.networks.layers import AdaptiveResBlock, ContentEncoder, TemporalDecoder
from animegen.models.temporal.networks.memory import LEVELS, Memory
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.networks.style import AdaNorm, FusionBlock, StyleEncoder
from animegen.nn.attention import SelfAttention
from animegen.nn.clips import to_clips, to_frames
from animegen.nn.conv import SLOPE, initialise, require_multiple, scale_channels
from animegen.nn.convlstm import ALIGNMENTS, Carried


class TemporalGenerator(nn.Module):
    """Stylise clips in the style of reference images, with a ConvLSTM pyramid as memory.

    Everything except the memory and the composition with the previous output processes single frames, for all frames of
    a call at once; only the recurrent part of the memory runs frame by frame. No norm mixes frames or samples. A clip
    in one call, in windows that pass on the state, or frame by frame gives the same result, so training and streaming
    share one implementation.

    Args:
        width: factor on the channels (64, 128 and 256 at 1/2, 1/4 and 1/8 of the resolution).
        levels: levels of the memory; empty for a model of single frames.
        memory: ratio of hidden channels to the channels of the maps.
        gate_norm: group norm of the gates of the memory.
        align: warping of the memory along the optical flow, which is then an input: ``none``, ``flow`` or
            ``flow_hidden``, see :class:`~animegen.nn.convlstm.ConvLSTM`.
        compose: ``previous`` composes each drawing with the previous output, warped along the optical flow, which is
            then an input, see :class:`~animegen.models.temporal.networks.composition.Composition`; ``none`` does not.
        encoder_blocks: residual blocks at 1/2, 1/4 and 1/8.
        blocks: number of fusion blocks at 1/8.
        fusion: kind of the fusion blocks, see :class:`~animegen.models.temporal.networks.style.FusionBlock`.
        kernel: attention kernel of the fusion blocks.
        self_attention: self-attention (SAGAN) at 1/8; images are then not processed in tiles.
        norm: norm of the residual blocks, ``layer`` or ``instance``, per frame.
        blurpool: blur before downsampling.
        skips: skip connections at 1/2 and 1/4.
        detail: skip connection from the frame to the layers at full resolution.
        styled: accept styles; ``False`` (for the anime-to-photo generator of a cycle) uses the default style only.

    Raises:
        AnimegenError: for settings that do not exist.
    """

    size_divisor = 8
    #: Exported files stylise single images in the default style.
    exported = (
        *("encoder", "memory", "adain", "attention", "fusion", "decoder"),
        *("style.default_code", "style.default_tokens"),
    )

    def __init__(
        self,
        width: float = 1.0,
        levels: Sequence[int] = LEVELS,
        memory: float = 1.0,
        gate_norm: bool = True,
        align: str = "none",
        compose: str = "none",
        encoder_blocks: Sequence[int] = (1, 1, 2),
        blocks: int = 6,
        fusion: str = "attention",
        kernel: str = "cosine",
        self_attention: bool = True,
        norm: str = "layer",
        blurpool: bool = True,
        skips: bool = True,
        detail: bool = True,
        styled: bool = True,
    ) -> None:
        super().__init__()
        for option, value, known in (("align", align, ALIGNMENTS), ("compose", compose, COMPOSITIONS)):
            if value not in known:
                raise AnimegenError(f"{option}={value} is unknown: use {', '.join(known)}.{did_you_mean(value, known)}")
        channels = [scale_channels(c, width) for c in (64, 128, 256)]
        self.align, self.styled = align if levels else "none", styled
        #: Settings of the training, see :class:`~animegen.nn.convlstm.ConvLSTM`.
        self.detach_every, self.state_noise = 0, 0.0
        self.encoder = ContentEncoder(channels, encoder_blocks, norm, blurpool)
        self.style = StyleEncoder(width)
        self.memory = Memory(channels, levels, memory, gate_norm)
        code, hidden = self.style.size, self.memory.hidden.get(3, 0)
        self.adain = AdaNorm(channels[2], code)
        self.attention = SelfAttention(channels[2]) if self_attention else None
        self.fusion = nn.ModuleList(FusionBlock(channels[2], code, hidden, fusion, kernel) for _ in range(blocks))
        self.decoder = TemporalDecoder(channels, code, norm, skips, detail)
        self.composition = Composition() if compose == "previous" else None
        for part in (self.encoder, self.style.layers, self.memory.masks, self.memory.outs, self.fusion, self.decoder):
            initialise(part, "he")
        for block in self.modules():
            if isinstance(block, AdaptiveResBlock):
                nn.init.zeros_(block.second.weight)

    @property
    def tileable(self) -> bool:
        """Whether an image without a past may be computed in tiles; self-attention reads the whole image."""
        return self.attention is None

    @property
    def needs_flow(self) -> bool:
        """Whether the optical flow is an input."""
        return self.align != "none" or self.composition is not None

    def forward(
        self,
        frames: Tensor,
        style: Style | Tensor | None = None,
        state: TemporalState | None = None,
        reset: Tensor | None = None,
        flow: Tensor | None = None,
        aux: dict[str, Tensor] | None = None,
        keep: bool = True,
    ) -> tuple[Tensor, TemporalState]:
        """Stylise clips.

        Args:
            frames: ``(B,T,3,H,W)`` in [-1,1], sides multiples of 8.
            style: encoded style, or one style image per stream ``(B,3,h,w)``; ``None`` for the style of the state, or
                the default style.
            state: state after the previous frames; ``None`` at the start of the streams.
            reset: bool ``(B,T)``, true where a stream is reset before that frame.
            flow: ``(B,T,2,H,W)``, from each frame to the previous one, if the model needs it; ignored at the start of a
                stream.
            aux: a dict that is filled with ``bottleneck``, the maps before the style is applied ``(B,T,C,H/8,W/8)``;
                ``attention``, the attention weights of the last fusion block ``(B,T,HW/64,K)``; and ``mask``, the mask
                of the composition ``(B,T,1,H,W)``.
            keep: update the memory. ``False`` skips this work for single frames without successors; the returned state
                is then that of a new stream.

        Returns:
            images of the shape of the frames in [-1,1], and the state.

        Raises:
            AnimegenError: if the state belongs to other streams or another size, or the flow is missing.
        """
        aux = {} if aux is None else aux
        shape = frames.shape[:2]
        flat = to_frames(frames)
        require_multiple(flat, self.size_divisor)
        if self.needs_flow and flow is None:
            raise AnimegenError("This model needs the optical flow (align, compose), which was not given.")
        if state is not None:
            self._check(state, frames)
        style = self._style(style, state, len(frames))
        maps, hidden, memory = self._remember(self.encoder(flat), shape[1], state, reset, flow, keep)
        aux["bottleneck"] = maps[2].unflatten(0, shape)
        per_frame = style.expanded(shape[1]) if shape[1] > 1 else style
        x, attention = self._fuse(maps[2], per_frame, hidden)
        if attention is not None:
            aux["attention"] = attention.unflatten(0, shape)
        drawn = self.decoder([maps[0], maps[1], F.leaky_relu(x, SLOPE)], per_frame.code, flat)
        drawing = to_clips(drawn, shape[1])
        previous = frames[:, -1] if self.needs_flow else None
        if self.composition is None or flow is None:
            return drawing, TemporalState(memory, style, previous)
        carried = None
        if state is not None and state.output is not None and state.previous is not None:
            carried = state.output, state.previous
        output, aux["mask"] = self.composition(drawing, frames, flow, carried, reset, self.detach_every)
        return output, TemporalState(memory, style, previous, output[:, -1])

    def _remember(
        self,
        maps: list[Tensor],
        length: int,
        state: TemporalState | None,
        reset: Tensor | None,
        flow: Tensor | None,
        keep: bool,
    ) -> tuple[list[Tensor], Tensor | None, tuple[Carried, ...]]:
        """Return the maps with the contribution of the memory, its hidden maps at 1/8, and its state."""
        carried = None if state is None else state.memory or None
        if not keep and length == 1 and carried is None:
            return maps, self.memory.empty(maps), ()
        return self.memory(
            maps,
            length,
            carried,
            reset=reset,
            flow=flow,
            align=self.align,
            detach_every=self.detach_every,
            noise=self.state_noise,
        )

    def _fuse(self, x: Tensor, style: Style, hidden: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Apply the style to the maps (N,C,h,w) at 1/8; return them and the attention weights of the last block."""
        x = self.adain(x, style.code)
        if self.attention is not None:
            x = self.attention(x)
        attention = None
        for block in self.fusion:
            x, attention = block(x, style, hidden)
        return x, attention

    def _check(self, state: TemporalState, frames: Tensor) -> None:
        streams = len(state.style.code)
        if streams != len(frames) or not state.fits(frames[:, 0], self.memory.levels):
            raise AnimegenError(
                f"A state of {streams} streams does not fit {len(frames)} streams of"
                f" {frames.shape[-1]}x{frames.shape[-2]} pixels: their number or size differs; start with state=None."
            )

    def _style(self, style: Style | Tensor | None, state: TemporalState | None, batch: int) -> Style:
        if style is None:
            return self.style.default(batch) if state is None else state.style
        if not self.styled:
            raise AnimegenError("This generator does not accept a style.")
        return self.style(style) if isinstance(style, Tensor) else style
