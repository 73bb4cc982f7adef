"""The state that a stream carries from frame to frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from animegen.nn.convlstm import Carried


class Style(NamedTuple):
    """An encoded style.

    Attributes:
        code: (B,Z), global style code.
        tokens: (B,K,Z), local style tokens.
        weights: (B,K), relative weights of the tokens.
    """

    code: Tensor
    tokens: Tensor
    weights: Tensor

    def expanded(self, times: int) -> Style:
        """Repeat each sample ``times`` times in a row: one style for all frames of a clip."""
        return Style(*(value.repeat_interleave(times, 0) for value in self))


@dataclass(frozen=True)
class TemporalState:
    """The complete state of B streams; the model keeps nothing else.

    Attributes:
        memory: hidden and cell map of each level, finest first.
        style: the encoded style, so that it is encoded once per stream.
        previous: the previous frame (B,3,H,W), if the model needs optical flow; else ``None``.
        output: the previous output (B,3,H,W), if outputs are composed with it; else ``None``.
    """

    memory: tuple[Carried, ...]
    style: Style
    previous: Tensor | None = None
    output: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> TemporalState:
        """Apply a function to all tensors."""
        return TemporalState(
            tuple((change(hidden), change(cell)) for hidden, cell in self.memory),
            Style(*(change(value) for value in self.style)),
            None if self.previous is None else change(self.previous),
            None if self.output is None else change(self.output),
        )

    def detach(self) -> TemporalState:
        """Return the state without its graph."""
        return self.map(torch.Tensor.detach)

    def to(self, device: torch.device | str) -> TemporalState:
        """Return the state on another device."""
        return self.map(lambda value: value.to(device))

    def reset(self, streams: Tensor) -> TemporalState:
        """Return the state with the memory of some streams, bool (B,), cleared; their style is kept."""
        kept = ~streams.view(-1, 1, 1, 1)
        memory = tuple((torch.where(kept, h, 0.0), torch.where(kept, c, 0.0)) for h, c in self.memory)
        output = None if self.output is None else torch.where(kept, self.output, 0.0)
        return replace(self, memory=memory, output=output)

    def without_memory(self) -> TemporalState:
        """Return the state of a new stream with the same style."""
        return replace(self, memory=(), previous=None, output=None)

    def fits(self, frames: Tensor, levels: Sequence[int]) -> bool:
        """Return whether the memory belongs to frames (B,3,H,W) of this size, for a memory with these levels."""
        if self.previous is not None and self.previous.shape[-2:] != frames.shape[-2:]:
            return False
        if not self.memory:
            return True
        scale = 2 ** min(levels)
        return self.memory[0][0].shape[-2:] == (frames.shape[-2] // scale, frames.shape[-1] // scale)
