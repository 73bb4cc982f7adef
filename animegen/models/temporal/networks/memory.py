"""The memory of the generator: a pyramid of ConvLSTM cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.clips import to_clips, to_frames
from animegen.nn.conv import ReflectConv, scale_channels
from animegen.nn.convlstm import Carried, ConvLSTM

LEVELS = (1, 2, 3)


class Memory(nn.Module):
    """A ConvLSTM at each chosen level of the feature pyramid, and its additive contribution to the maps.

    The input of a cell is the map of its level and the hidden map of the cell one level finer. The map becomes
    ``f + gamma m conv(h)`` with the mask ``m = sigmoid(conv1x1([f, h]))``. ``gamma`` is initially 0.3, not 0, so that
    the memory gets gradients from the first step.

    The memory adds nothing to the first frame of a stream, which has no past. The output for a first frame is therefore
    that of a network without memory: the memory cannot learn what single frames are sufficient for, and training on
    single frames does not need it.

    Args:
        channels: channels of the maps at 1/2, 1/4 and 1/8 of the resolution.
        levels: levels with a cell, from 1 to 3.
        share: ratio of hidden channels to the channels of the maps.
        norm: group norm of the gates, see :class:`~animegen.nn.convlstm.ConvLSTM`.

    Raises:
        AnimegenError: for levels that do not exist or occur twice.
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
            maps: the maps of the three levels.
            length: T.
            carried: hidden and cell map of each level from the previous call, or ``None``.
            **options: see :meth:`~animegen.nn.convlstm.ConvLSTM.forward`.

        Returns:
            the maps with the contribution of the memory; the hidden maps (B*T,C,h,w) at 1/8, if there is a cell, 0 for
            first frames; the maps to carry to the next call.
        """
        maps = list(maps)
        past = _has_past(len(maps[0]) // length, length, carried, options.get("reset"), maps[0].device)
        hidden: dict[int, Tensor] = {}
        states = []
        for number, level in enumerate(self.levels):
            read = maps[level - 1]
            if level - 1 in hidden:
                read = torch.cat([read, F.avg_pool2d(hidden[level - 1], 2).to(read.dtype)], 1)
            clips = to_clips(read, length)
            recalled, state = self.cells[number](clips, None if carried is None else carried[number], **options)
            states.append(state)
            hidden[level] = to_frames(recalled)
            h = hidden[level].to(maps[level - 1].dtype)
            mask = torch.sigmoid(self.masks[number](torch.cat([maps[level - 1], h], 1)))
            added = self.gamma[number] * past * mask * self.outs[number](h)
            maps[level - 1] = maps[level - 1] + added.to(maps[level - 1].dtype)
        top = past * hidden[3] if 3 in hidden else None
        return maps, top, tuple(states)

    def empty(self, maps: list[Tensor]) -> Tensor | None:
        """Return the hidden maps (N,C,h,w) at 1/8, if there is a cell, for first frames: zeros."""
        return maps[2].new_zeros(len(maps[2]), self.hidden[3], *maps[2].shape[-2:]) if 3 in self.hidden else None


def _has_past(
    batch: int, length: int, carried: Sequence[Carried] | None, reset: Tensor | None, device: torch.device
) -> Tensor:
    """Return 1 for frames with a past and 0 for first frames of a stream, (B*T,1,1,1).

    A hidden map that is 0 everywhere represents a stream that was reset between two calls.
    """
    past = torch.ones(batch, length, dtype=torch.bool, device=device)
    past[:, 0] = False if not carried else carried[0][0].flatten(1).any(1)
    if reset is not None:
        past = past & ~reset
    return past.float().view(-1, 1, 1, 1)
