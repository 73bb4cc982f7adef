"""What a stream carries from frame to frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from animegen.nn.convlstm import Carried


class Style(NamedTuple):
    """Encoded stills of a style.

    Attributes:
        code: (B,Z), what holds for the picture as a whole.
        tokens: (B,K,Z), what holds for parts of it.
        weights: (B,K), how much each token counts; only their ratios matter.
    """

    code: Tensor
    tokens: Tensor
    weights: Tensor

    def expanded(self, times: int) -> Style:
        """Repeat each sample ``times`` times in a row: one style for all frames of a clip."""
        return Style(*(value.repeat_interleave(times, 0) for value in self))


@dataclass(frozen=True)
class TemporalState:
    """All that B streams remember; nothing is kept anywhere else.

    Attributes:
        memory: hidden and cell map of each level, finest first.
        style: the encoded style, so that it is encoded once per stream.
        previous: the frame before (B,3,H,W), if something follows the picture along a flow; else ``None``.
        drawn: the output before (B,3,H,W), if outputs are composed with it; else ``None``.
    """

    memory: tuple[Carried, ...]
    style: Style
    previous: Tensor | None = None
    drawn: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> TemporalState:
        """Return the state with every tensor changed."""
        return TemporalState(
            tuple((change(hidden), change(cell)) for hidden, cell in self.memory),
            Style(*(change(value) for value in self.style)),
            None if self.previous is None else change(self.previous),
            None if self.drawn is None else change(self.drawn),
        )

    def detach(self) -> TemporalState:
        """Return the state without its history: gradients end here."""
        return self.map(torch.Tensor.detach)

    def to(self, where: torch.device | str) -> TemporalState:
        """Return the state on another device."""
        return self.map(lambda value: value.to(where))

    def reset(self, streams: Tensor) -> TemporalState:
        """Return the state with the memory of some streams, bool (B,), emptied; their style stays."""
        kept = ~streams.view(-1, 1, 1, 1)
        memory = tuple((torch.where(kept, h, 0.0), torch.where(kept, c, 0.0)) for h, c in self.memory)
        return replace(self, memory=memory, drawn=None if self.drawn is None else torch.where(kept, self.drawn, 0.0))
