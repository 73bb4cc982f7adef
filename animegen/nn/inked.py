"""A generator that draws flat areas and, over them, lines of ink; not from a paper."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from animegen.nn.compact import DETAIL, CompactUNet
from animegen.nn.conv import ReflectConv


class InkedUNet(nn.Module):
    """``areas * (1 - opacity * (1 - ink))``: a :class:`~animegen.nn.compact.CompactUNet` with two outputs.

    Lines and areas are different tasks: lines are decided by local contrast, and learned as a classification of pixels
    (:class:`~animegen.losses.InkBCE`) they appear after a tenth of the steps that a loss on images needs. Untrained,
    the areas are the photo, with faint ink everywhere.

    Args:
        width: see :class:`~animegen.nn.compact.CompactUNet`.
        blocks: see there.
        norm: see there.
    """

    size_divisor = CompactUNet.size_divisor

    def __init__(self, width: float = 1.0, blocks: int = 1, norm: str | None = None) -> None:
        super().__init__()
        self.network = CompactUNet(width, blocks, norm, output="linear")
        self.network.last = ReflectConv(DETAIL, 4, 3, bias=True)
        self.ink = nn.Parameter(torch.full((3, 1, 1), 0.25))  # lightness of a line relative to the area, per channel
        nn.init.zeros_(self.network.last.weight)
        self.network.last.bias = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, -2.0]))

    def draw(self, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B,3,H,W) in [-1,1], sides multiples of 8, to a drawing like it and logits of opacity (B,1,H,W)."""
        areas, logits = self.layers(self.network.features(photo), photo)
        return self.inked(areas, logits), logits

    def layers(self, features: Tensor, photo: Tensor) -> tuple[Tensor, Tensor]:
        """Split the output (B,4,H,W) of the network for a photo into areas (B,3,H,W) and logits of ink (B,1,H,W)."""
        change, logits = features.float().split([3, 1], dim=1)
        return photo + change, logits

    def inked(self, areas: Tensor, logits: Tensor) -> Tensor:
        """Draw ink of that opacity over the areas."""
        return (areas + 1) * (1 - torch.sigmoid(logits) * (1 - self.ink)) - 1

    def forward(self, photo: Tensor) -> Tensor:
        """Return the drawing of (B,3,H,W), clamped to [-1,1] in evaluation."""
        drawing = self.draw(photo)[0]
        return drawing if self.training else drawing.clamp(-1, 1)
