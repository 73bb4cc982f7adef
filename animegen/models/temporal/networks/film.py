"""A generator of films as cels: areas and lines of each frame, composed with those of the previous one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.models.temporal.networks.composition import COMPOSITIONS
from animegen.models.temporal.networks.memory import Memory
from animegen.nn.clips import stack_frames, to_clips, to_frames
from animegen.nn.conv import scale_channels
from animegen.nn.convlstm import Carried
from animegen.nn.inked import InkedUNet
from animegen.nn.precision import at_least_float32
from animegen.nn.warp import backward_warp, inside

#: Logits of ink are limited to this, so that a line can appear and vanish within a few frames.
LIMIT = 6.0
#: Change of a film along its motion, of a range of 2, at which half of the areas, and half of the ink, is drawn anew;
#: and how fast the share grows there.
_AREAS, _INK, _SLOPE = 0.0425, 0.0975, 40.0
#: Changes of the colours over some twenty pixels up to this, of a range of 2, are changes of the light.
_LIGHT = 0.1
#: A point counts as still if its surroundings differ by less than this more without the motion than with it.
_STILL = 0.01
#: ... and if the flow of some forty pixels around it has a mean shorter than this, in pixels per frame.
_REST = 0.1


@dataclass(frozen=True)
class FilmState:
    """The state of B streams.

    Attributes:
        frame: the previous frame (B,3,H,W).
        layers: its composed areas and logits of ink (B,4,H,W); ``None``: outputs are not composed.
        memory: hidden and cell map of each level of the memory, finest first.
    """

    frame: Tensor
    layers: Tensor | None = None
    memory: tuple[Carried, ...] = ()


class FilmGenerator(nn.Module):
    """An :class:`~animegen.nn.inked.InkedUNet` whose layers follow the motion of the film.

    The network draws areas and logits of ink of each frame. Both are composed with those of the previous output, moved
    along the optical flow::

        layer_t = m d_t + (1 - m) (W(layer_(t-1)) + light)

    with a mask m for the areas and one for the ink, and the change of the light, of areas only. Composed logits of ink
    remain crisp lines, where composed images would show the mean of lines that differ. The masks are small where the
    frame is what the moved previous frame shows (:func:`renewal`), and 1 on the first frame of a stream, and where the
    previous frame does not show the point.

    Args:
        width: factor on the channels of the network, see :class:`~animegen.nn.compact.CompactUNet`.
        compose: ``previous``, or ``none`` for the drawing of each frame alone.
        levels: levels of the maps with a ConvLSTM cell, see :class:`~animegen.models.temporal.networks.memory.Memory`.
        memory: ratio of hidden channels of the cells to the channels of the maps.
    """

    size_divisor = InkedUNet.size_divisor

    def __init__(
        self, width: float = 0.5, compose: str = "previous", levels: Sequence[int] = (), memory: float = 0.5
    ) -> None:
        super().__init__()
        if compose not in COMPOSITIONS:
            raise AnimegenError(
                f"compose={compose} is unknown: use {', '.join(COMPOSITIONS)}.{did_you_mean(compose, COMPOSITIONS)}"
            )
        self.drawing = InkedUNet(width)
        self.compose = compose
        channels = [scale_channels(count, width) for count in (64, 128, 256)]
        self.memory = Memory(channels, levels, memory, norm=True) if levels else None

    def forward(
        self,
        frames: Tensor,
        flow: Tensor,
        seen: Tensor | None = None,
        state: FilmState | None = None,
        reset: Tensor | None = None,
        aux: dict[str, Tensor] | None = None,
    ) -> tuple[Tensor, FilmState]:
        """Draw clips.

        Args:
            frames: ``(B,T,3,H,W)`` in [-1,1], sides multiples of 8.
            flow: ``(B,T,2,H,W)`` in pixels, from each frame to the previous one; ignored at the start of a stream.
            seen: bool ``(B,T,1,H,W)``: the previous frame shows the point, as far as the flows there and back agree;
                ``None``: everywhere.
            state: state after the previous frames; ``None`` at the start of the streams.
            reset: bool ``(B,T)``, true where a stream is reset before that frame.
            aux: a dict that is filled with ``drawn`` and ``drawn_logits``, drawings and logits of ink of each frame
                alone, ``logits`` of the output, and ``mask`` ``(B,T,2,H,W)``, of areas and ink.

        Returns:
            drawings of the shape of the frames, and the state.
        """
        length, flat = frames.shape[1], to_frames(frames)
        maps, memory = self.drawing.network.encode(flat), ()
        if self.memory is not None:
            remembered = state.memory if state is not None and state.memory else None
            maps, _, memory = self.memory(maps, length, remembered, reset=reset)
        areas, logits = self.drawing.layers(self.drawing.network.decode(maps, flat), flat)
        if aux is not None:
            aux["drawn"] = to_clips(self.drawing.inked(areas, logits), length)
            aux["drawn_logits"] = to_clips(logits, length)
        composed = None
        if self.compose == "previous":
            layers = to_clips(torch.cat([areas, logits.clamp(-LIMIT, LIMIT)], 1), length)
            carried = None if state is None or state.layers is None else (state.layers, state.frame)
            layers, mask = compose_layers(layers, frames, flow, seen, carried, reset)
            composed = layers[:, -1]
            areas, logits = to_frames(layers).split([3, 1], 1)
            if aux is not None:
                aux["mask"] = mask
        if aux is not None:
            aux["logits"] = to_clips(logits, length)
        return to_clips(self.drawing.inked(areas, logits), length), FilmState(frames[:, -1], composed, memory)


def compose_layers(
    layers: Tensor,
    frames: Tensor,
    flow: Tensor,
    seen: Tensor | None = None,
    carried: tuple[Tensor, Tensor] | None = None,
    reset: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compose the layers of the frames of clips with those of the previous frames, moved along the flow.

    Args:
        layers: areas and logits of ink ``(B,T,4,H,W)``, each of its frame alone.
        frames: the frames ``(B,T,3,H,W)`` in [-1,1].
        flow: ``(B,T,2,H,W)`` in pixels, from each frame to the previous one.
        seen: bool ``(B,T,1,H,W)``, true where the previous frame shows the point; ``None``: everywhere.
        carried: the previous composed layers and frame; ``None`` at the start of the streams.
        reset: bool ``(B,T)``, true where a stream is reset before that frame.

    Returns:
        composed layers ``(B,T,4,H,W)`` and masks ``(B,T,2,H,W)`` of areas and ink, 1: new.
    """
    # Warps and means over the channels are faster in this order than in channels_last.
    layers, frames = (at_least_float32(part).contiguous() for part in (layers, frames))
    composed, masks = [], []
    for t in range(layers.shape[1]):
        out, mask = layers[:, t], torch.ones_like(layers[:, t, :2])
        if carried is not None:
            stands = standing(flow[:, t], frames[:, t], carried[1])
            motion = flow[:, t] * ~stands
            past, before = backward_warp(torch.cat(carried, 1), motion, mode="bicubic").split([4, 3], 1)
            change = frames[:, t] - before
            light = change_of_light(change)
            past = torch.cat([(past[:, :3] + light).clamp(-1.5, 1.5), past[:, 3:].clamp(-LIMIT, LIMIT)], 1)
            valid = inside(motion)
            if seen is not None:
                valid = valid & (seen[:, t] | stands)
            if reset is not None:
                valid = valid & ~reset[:, t].view(-1, 1, 1, 1)
            mask = torch.where(valid, renewal(change - light), 1.0)
            out = torch.lerp(past, out, mask[:, [0, 0, 0, 1]])
        carried = out, frames[:, t]
        composed.append(out)
        masks.append(mask)
    return stack_frames(composed), stack_frames(masks)


def renewal(change: Tensor) -> Tensor:
    """Return the shares (B,2,H,W) of areas and of ink that are drawn anew, by the change of a film (B,3,H,W).

    Ink is kept longer, since lines that come and go are what flickers.
    """
    around = box(F.avg_pool2d(change.abs().mean(1, keepdim=True), 2), 3)
    shares = torch.cat([torch.sigmoid(_SLOPE * (around - half)) for half in (_AREAS, _INK)], 1)
    return F.interpolate(shares, change.shape[-2:], mode="bilinear", align_corners=False)


def change_of_light(change: Tensor) -> Tensor:
    """Return the part of the change of a film along its motion (B,3,H,W) that a change of the light explains.

    The camera adapts its exposure, and clouds pass: what is taken from the previous output has to follow.
    """
    slow = box(F.avg_pool2d(change, 4), 5).clamp(-_LIGHT, _LIGHT)
    return F.interpolate(slow, change.shape[-2:], mode="bilinear", align_corners=False)


def standing(flow: Tensor, frame: Tensor, previous: Tensor) -> Tensor:
    """Return where a film stands still, bool (B,1,H,W).

    Estimated flow is never exactly 0. What follows it would be moved by a fraction of a pixel to and fro, and blurred,
    with every frame.

    Args:
        flow: (B,2,H,W) from the frame to the previous one, in pixels.
        frame: (B,3,H,W) in [-1,1].
        previous: the previous frame, like it.
    """
    still, moved = (
        box(F.avg_pool2d((frame - there).abs().mean(1, keepdim=True), 2), 5)
        for there in (previous, backward_warp(previous, flow))
    )
    # In squares, since a norm over two channels takes as long as the warp.
    drift = F.interpolate(box(F.avg_pool2d(flow, 4), 9), still.shape[-2:]).square().sum(1, keepdim=True)
    stands = (still <= moved + _STILL) & (drift < _REST**2)
    return F.interpolate(stands.float(), flow.shape[-2:]) > 0.5


def box(values: Tensor, side: int) -> Tensor:
    """Return the means of the squares around each pixel (B,C,H,W)."""
    return F.avg_pool2d(values, side, 1, side // 2, count_include_pad=False)
