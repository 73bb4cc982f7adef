"""The last step of a generator: from unbounded values to pictures in [-1,1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.precision import at_least_float32

OUTPUTS = ("tanh", "sigmoid", "sigmoid01", "linear")


class OutputActivation(nn.Module):
    """Map unbounded values to [-1,1], in float32 or better.

    Args:
        kind: ``tanh``; ``sigmoid``, stretched from [0,1] to [-1,1]; ``sigmoid01``, not stretched, so that only the
            brighter half of the range can be drawn (a mistake that is easily made, kept for comparison); or
            ``linear``, which leaves the values alone in training, so that gradients flow beyond the range too, and
            clamps them in evaluation.

    Raises:
        AnimegenError: if there is no such output.
    """

    def __init__(self, kind: str = "tanh") -> None:
        super().__init__()
        if kind not in OUTPUTS:
            raise AnimegenError(
                f"There is no generator output '{kind}': choose one of {', '.join(OUTPUTS)}."
                + did_you_mean(kind, OUTPUTS)
            )
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of any shape; the shape stays."""
        x = at_least_float32(x)
        if self.kind == "tanh":
            return torch.tanh(x)
        if self.kind == "sigmoid":
            return 2 * torch.sigmoid(x) - 1
        if self.kind == "sigmoid01":
            return torch.sigmoid(x)
        return x if self.training else x.clamp(-1, 1)
