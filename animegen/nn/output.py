"""Output activations of generators."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.precision import at_least_float32

OUTPUTS = ("tanh", "sigmoid", "sigmoid01", "linear")


class OutputActivation(nn.Module):
    """Map unbounded values to [-1,1], in float32 or better.

    Args:
        kind: ``tanh``; ``sigmoid``, scaled to [-1,1]; ``sigmoid01``, not scaled, which covers only the brighter half of
            the range (a common mistake, kept for comparison); or ``linear``, the identity in training, which lets
            gradients pass outside the range, and a clamp in evaluation.

    Raises:
        AnimegenError: for an unknown kind.
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
        """Map ``x`` of any shape to the same shape."""
        x = at_least_float32(x)
        if self.kind == "tanh":
            return torch.tanh(x)
        if self.kind == "sigmoid":
            return 2 * torch.sigmoid(x) - 1
        if self.kind == "sigmoid01":
            return torch.sigmoid(x)
        return x if self.training else x.clamp(-1, 1)
