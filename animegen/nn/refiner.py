"""Refinement network from degraded drawings towards photos."""

from __future__ import annotations

from torch import Tensor, nn

from animegen.nn.compact import CompactUNet


class Refiner(nn.Module):
    """Add the missing statistics of photos to degraded drawings: ``clamp(x + network(x), -1, 1)``.

    Trained against a discriminator of photos, with an L1 term to its input so that it changes texture and light but not
    geometry. It starts as the identity.

    Args:
        width: factor on the channels of the :class:`CompactUNet`.

    Source: Shrivastava et al., "Learning from Simulated and Unsupervised Images through Adversarial Training",
    CVPR 2017, with another network.
    """

    def __init__(self, width: float = 0.125) -> None:
        super().__init__()
        self.network = CompactUNet(width, norm=None, output="linear", shortcut=True)
        self.size_divisor = self.network.size_divisor

    def forward(self, degraded: Tensor) -> Tensor:
        """Map (B,3,H,W) in [-1,1], sides multiples of ``size_divisor``, to the same."""
        return self.network(degraded).clamp(-1, 1)
