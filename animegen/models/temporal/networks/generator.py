"""The generator: frames and a style in, drawn frames out, with a memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.temporal.networks.composition import COMPOSITIONS, Composition
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.networks.style import AdaNorm, FusionBlock, StyleEncoder
from animegen.nn.attention import SelfAttention
from animegen.nn.conv import SLOPE, ReflectConv, Upsample, initialise, require_multiple, scale_channels
from animegen.nn.convlstm import ALIGNMENTS, Carried, ConvLSTM, pooled
from animegen.nn.norm import make_norm
from animegen.nn.precision import reflect_pad

#: Channels at full resolution, whatever the width.
DETAIL = 16
LEVELS = (1, 2, 3)


class BlurDown(nn.Module):
    """Halve the size by a 2x2 convolution of stride 2, blurred before by [1,2,1] if asked for (Zhang 2019).

    Without the blur a shift by one pixel changes what is seen at half the size: things that move flicker.
    """

    def __init__(self, inputs: int, outputs: int, blur: bool) -> None:
        super().__init__()
        self.blur = blur
        self.conv = ReflectConv(inputs, outputs, 2, stride=2, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N,inputs,H,W) to (N,outputs,H/2,W/2)."""
        if self.blur:  # [1,2,1] is [1,1] twice
            x = F.avg_pool2d(reflect_pad(x, (1, 1, 1, 1)), 2, stride=1)
            x = F.avg_pool2d(x, 2, stride=1)
        return self.conv(x)


class ResidualBlock(nn.Module):
    """``x + conv(SiLU(conv(norm(x))))``, both 3x3; begins as the identity. With a code the norm is an AdaNorm."""

    def __init__(self, channels: int, norm: str, code: int = 0) -> None:
        super().__init__()
        self.norm = AdaNorm(channels, code, norm) if code else make_norm(norm, channels)
        self.first = ReflectConv(channels, channels, 3, bias=True)
        self.second = ReflectConv(channels, channels, 3, bias=True)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """Map (N,C,H,W), with codes (N,Z) if the block takes any, to the same shape."""
        normed = self.norm(x) if code is None else self.norm(x, code)
        return x + self.second(F.silu(self.first(normed)))


class ContentEncoder(nn.Module):
    """Frames to maps at 1/2, 1/4 and 1/8 of their size, each frame by itself."""

    def __init__(self, channels: Sequence[int], blocks: Sequence[int], norm: str, blur: bool) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.stem = ReflectConv(3, c1, 6, stride=2, bias=True)
        self.downs = nn.ModuleList([BlurDown(c1, c2, blur), BlurDown(c2, c3, blur)])
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(c, norm) for _ in range(count)))
            for c, count in zip(channels, blocks, strict=True)
        )

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Map (N,3,H,W) to three maps."""
        maps = [self.blocks[0](self.stem(frames))]
        for down, blocks in zip(self.downs, list(self.blocks)[1:], strict=True):
            maps.append(blocks(down(maps[-1])))
        return maps


class Memory(nn.Module):
    """A ConvLSTM at each chosen level of the pyramid, and what it adds to the maps there.

    A cell reads the maps of its level and the hidden maps of the cell one level finer. The maps become
    ``f + gamma m conv(h)`` with the mask ``m = sigmoid(conv1x1([f, h]))``. ``gamma`` begins at 0.3 and not at 0, so
    that the memory learns from the first step on.

    The first frame of a stream has no past, and the memory adds nothing to it: what is drawn then is what a network
    for single frames draws. So nothing that single frames can do by themselves hides in the memory, and training on
    single frames does not pay for it.

    Args:
        channels: of the maps at 1/2, 1/4 and 1/8.
        levels: which of them, 1 to 3, have a cell.
        share: hidden channels per channel of the maps.
        norm: group norm of the gates, see :class:`~animegen.nn.convlstm.ConvLSTM`.
    """

    def __init__(self, channels: Sequence[int], levels: Sequence[int], share: float, norm: bool) -> None:
        super().__init__()
        if any(level not in LEVELS for level in levels) or len(set(levels)) < len(levels):
            raise AnimegenError(f"levels={list(levels)} is not possible: choose from 1, 2 and 3, each once.")
        self.levels = sorted(levels)
        self.hidden = {level: scale_channels(channels[level - 1], share) for level in self.levels}
        self.cells, self.masks, self.outs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in self.levels:
            maps, hidden = channels[level - 1], self.hidden[level]
            self.cells.append(ConvLSTM(maps + self.hidden.get(level - 1, 0), hidden, norm))
            self.masks.append(nn.Conv2d(maps + hidden, 1, 1))
            self.outs.append(ReflectConv(hidden, maps, 3))
        self.gamma = nn.Parameter(torch.full((len(self.levels),), 0.3))

    def forward(
        self, maps: list[Tensor], length: int, carried: Sequence[Carried] | None, **options: Any
    ) -> tuple[list[Tensor], Tensor | None, tuple[Carried, ...]]:
        """Run over the maps (B*T,C,h,w) of clips of ``length`` frames.

        Args:
            maps: at the three levels.
            length: T.
            carried: what each level carries on, or ``None``.
            options: see :meth:`~animegen.nn.convlstm.ConvLSTM.forward`.

        Returns:
            the maps with the memory's part; the hidden maps (B*T,C,h,w) at 1/8, if there is a cell, 0 where there is no
            past; what to carry on.
        """
        maps = list(maps)
        past = _has_past(len(maps[0]) // length, length, carried, options.get("reset"), maps[0].device)
        hidden: dict[int, Tensor] = {}
        after = []
        for number, level in enumerate(self.levels):
            frames = maps[level - 1].unflatten(0, (-1, length))
            if level - 1 in hidden:
                frames = torch.cat([frames, pooled(hidden[level - 1]).to(frames.dtype)], 2)
            hidden[level], state = self.cells[number](frames, None if carried is None else carried[number], **options)
            after.append(state)
            h = hidden[level].flatten(0, 1).to(maps[level - 1].dtype)
            mask = torch.sigmoid(self.masks[number](torch.cat([maps[level - 1], h], 1)))
            added = self.gamma[number] * past * mask * self.outs[number](h)
            maps[level - 1] = maps[level - 1] + added.to(maps[level - 1].dtype)
        top = past * hidden[3].flatten(0, 1) if 3 in hidden else None
        return maps, top, tuple(after)

    def nothing(self, maps: list[Tensor]) -> Tensor | None:
        """Return the hidden maps (N,C,h,w) at 1/8, if there is a cell, of frames without a past: 0."""
        return maps[2].new_zeros(len(maps[2]), self.hidden[3], *maps[2].shape[-2:]) if 3 in self.hidden else None


def _has_past(
    batch: int, length: int, carried: Sequence[Carried] | None, reset: Tensor | None, device: torch.device
) -> Tensor:
    """Return 1 for each frame that has a past and 0 for each that starts a stream, (B*T,1,1,1).

    A stream whose hidden map is 0 everywhere was emptied between two calls.
    """
    past = torch.ones(batch, length, dtype=torch.bool, device=device)
    past[:, 0] = False if not carried else carried[0][0].flatten(1).any(1)
    if reset is not None:
        past = past & ~reset
    return past.float().view(-1, 1, 1, 1)


class Decoder(nn.Module):
    """Maps to pictures: bilinear doubling, skips added, residual blocks that the code conditions.

    Full resolution sees two thin layers only, where fine detail comes straight from the frame if ``detail`` is on.
    """

    def __init__(self, channels: Sequence[int], code: int, norm: str, skips: bool, detail: bool) -> None:
        super().__init__()
        c1, c2, c3 = channels
        self.skips = skips
        self.up2, self.block2 = ReflectConv(c3, c2, 1, bias=True), ResidualBlock(c2, norm, code)
        self.up1, self.block1 = ReflectConv(c2, c1, 1, bias=True), ResidualBlock(c1, norm, code)
        self.head = ReflectConv(c1, DETAIL, 3, bias=True)
        self.detail = ReflectConv(3, DETAIL, 3, bias=True) if detail else None
        self.last = ReflectConv(DETAIL, 3, 3, bias=True)
        self.upsample = Upsample("bilinear")

    def forward(self, maps: list[Tensor], code: Tensor, frames: Tensor) -> Tensor:
        """Map the maps at 1/2, 1/4, 1/8, the codes (N,Z) and the frames (N,3,H,W) to pictures (N,3,H,W) in [-1,1]."""
        half, quarter, eighth = maps
        x = self.upsample(self.up2(eighth))
        x = self.block2(x + quarter if self.skips else x, code)
        x = self.upsample(self.up1(x))
        x = self.block1(x + half if self.skips else x, code)
        x = self.upsample(self.head(x))
        if self.detail is not None:
            x = x + self.detail(frames)
        return torch.tanh(self.last(F.leaky_relu(x, SLOPE)))


class TemporalGenerator(nn.Module):
    """Draws clips frame after frame, in the style of stills, with a ConvLSTM pyramid as memory.

    Everything but the memory (and the composition with the last output, if there is one) looks at single frames and
    runs over all frames of a call at once; only the recurrent part of the memory goes frame by frame. No norm mixes
    frames or samples. So a clip in one piece, in windows that hand on the state, and frame by frame give the same, and
    training and streaming are one code.

    Args:
        width: factor on the channels (64, 128 and 256 at 1/2, 1/4 and 1/8 of the size).
        levels: where the memory has cells; none is a model that looks at single frames.
        memory: hidden channels per channel of the maps.
        gate_norm: group norm of the memory's gates.
        align: whether the memory is moved along a flow that is then needed: ``none``, ``flow`` or ``flow_hidden``.
        compose: ``previous`` composes each drawing with the output before, moved along a flow that is then needed, see
            :class:`~animegen.models.temporal.networks.composition.Composition`; ``none`` puts it out as it is.
        encoder_blocks: residual blocks at 1/2, 1/4 and 1/8.
        blocks: number of fusion blocks at 1/8.
        fusion: see :class:`~animegen.models.temporal.networks.style.FusionBlock`.
        kernel: attention kernel of the fusion blocks.
        self_attention: SAGAN's, at 1/8; the picture is then not computed in tiles.
        norm: of the residual blocks, ``layer`` or ``instance``, of each frame by itself.
        blurpool: blur before sizes are halved.
        skips: hand the maps at 1/2 and 1/4 to the decoder.
        detail: hand the frame itself to the layers at full resolution.
        styled: take styles; ``False`` (for the way back from anime to photo) knows the learned default only.
    """

    factor = 8
    #: A memory holds whole frames.
    tileable = False

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
        if align not in ALIGNMENTS:
            raise AnimegenError(
                f"align={align} is unknown: use {', '.join(ALIGNMENTS)}.{did_you_mean(align, ALIGNMENTS)}"
            )
        if compose not in COMPOSITIONS:
            raise AnimegenError(
                f"compose={compose} is unknown: use {', '.join(COMPOSITIONS)}.{did_you_mean(compose, COMPOSITIONS)}"
            )
        channels = [scale_channels(c, width) for c in (64, 128, 256)]
        self.align, self.styled = align if levels else "none", styled
        #: Settings of the training, see :class:`~animegen.nn.convlstm.ConvLSTM`.
        self.detach_every, self.state_noise = 0, 0.0
        self.encoder = ContentEncoder(channels, encoder_blocks, norm, blurpool)
        self.style = StyleEncoder(width)
        self.memory = Memory(channels, levels, memory, gate_norm)
        code, held = self.style.size, self.memory.hidden.get(3, 0)
        self.adain = AdaNorm(channels[2], code)
        self.attention = SelfAttention(channels[2]) if self_attention else None
        self.fusion = nn.ModuleList(FusionBlock(channels[2], code, held, fusion, kernel) for _ in range(blocks))
        self.decoder = Decoder(channels, code, norm, skips, detail)
        self.composition = Composition() if compose == "previous" else None
        for part in (self.encoder, self.style.layers, self.memory.masks, self.memory.outs, self.fusion, self.decoder):
            initialise(part, "he")
        for block in self.modules():
            if isinstance(block, ResidualBlock):
                nn.init.zeros_(block.second.weight)

    @property
    def needs_flow(self) -> bool:
        """Whether the memory or the last output follows the picture along a flow."""
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
        """Draw clips.

        Args:
            frames: ``(B,T,3,H,W)`` in [-1,1], sides multiples of 8.
            style: encoded, or one still per stream ``(B,3,h,w)``; ``None`` is that of the state, or else the default.
            state: what the call for the frames before returned; ``None`` at the start of the streams.
            reset: bool ``(B,T)``: where true, that stream starts anew before that frame.
            flow: ``(B,T,2,H,W)``, from each frame into the one before (anything at the first frame of a stream); needed
                if the memory or the last output follows it.
            aux: is filled with ``bottleneck``, the maps before the style comes in ``(B,T,C,H/8,W/8)``; ``attention``,
                what the places of the last fusion block read from the tokens ``(B,T,HW/64,K)``; and ``mask``, how much
                of each pixel is not composed of the last output ``(B,T,1,H,W)``.
            keep: remember the frames. ``False`` spares the memory's work on single frames that nothing follows; the
                state is then that of a fresh start.

        Returns:
            Pictures of the shape of the frames in [-1,1], and the state.

        Raises:
            AnimegenError: if the state belongs to other streams or another size, or the flow is missing.
        """
        batch, length = frames.shape[:2]
        flat = frames.flatten(0, 1)
        require_multiple(flat, self.factor)
        if self.needs_flow and flow is None:
            raise AnimegenError("The memory of this model follows a flow (align, compose), which was not given.")
        carried = None
        if state is not None:
            self._check(state, frames)
            carried = state.memory or None
        style = self._style(style, state, batch)
        maps = self.encoder(flat)
        held, after = self.memory.nothing(maps), ()
        if keep or length > 1 or carried is not None:
            maps, held, after = self.memory(
                maps,
                length,
                carried,
                reset=reset,
                flow=flow,
                align=self.align,
                detach_every=self.detach_every,
                noise=self.state_noise,
            )
        each = style.expanded(length) if length > 1 else style
        x = maps[2]
        if aux is not None:
            aux["bottleneck"] = x.unflatten(0, (batch, length))
        x = self.adain(x, each.code)
        if self.attention is not None:
            x = self.attention(x)
        shares = None
        for block in self.fusion:
            x, shares = block(x, each, held)
        if aux is not None and shares is not None:
            aux["attention"] = shares.unflatten(0, (batch, length))
        drawn = self.decoder([maps[0], maps[1], F.leaky_relu(x, SLOPE)], each.code, flat).unflatten(0, (batch, length))
        previous = frames[:, -1] if self.needs_flow else None
        if self.composition is None or flow is None:
            return drawn, TemporalState(after, style, previous)
        last = None if state is None or state.drawn is None or state.previous is None else (state.drawn, state.previous)
        drawn, mask = self.composition(drawn, frames, flow, last, reset, self.detach_every)
        if aux is not None:
            aux["mask"] = mask
        return drawn, TemporalState(after, style, previous, drawn[:, -1])

    def _check(self, state: TemporalState, frames: Tensor) -> None:
        streams = len(state.style.code)
        if streams != len(frames) or not fits(state, frames[:, 0], self.memory.levels):
            raise AnimegenError(
                f"A state of {streams} streams cannot go on with {len(frames)} of {frames.shape[-1]}x{frames.shape[-2]}"
                " pixels, which are not as many or of another size: begin with state=None."
            )

    def _style(self, style: Style | Tensor | None, state: TemporalState | None, batch: int) -> Style:
        if style is None:
            return self.style.default(batch) if state is None else state.style
        if not self.styled:
            raise AnimegenError("This generator takes no style.")
        return self.style(style) if isinstance(style, Tensor) else style


def fits(state: TemporalState, frames: Tensor, levels: Sequence[int]) -> bool:
    """Tell whether the memory of a state belongs to frames (B,3,H,W) of this size."""
    if state.previous is not None and state.previous.shape[-2:] != frames.shape[-2:]:
        return False
    if not state.memory:
        return True
    scale = 2 ** min(levels)
    return state.memory[0][0].shape[-2:] == (frames.shape[-2] // scale, frames.shape[-1] // scale)


def without_memory(state: TemporalState) -> TemporalState | None:
    """Return a state that starts the memory anew but keeps the style."""
    return replace(state, memory=(), previous=None, drawn=None)
