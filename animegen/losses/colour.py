"""Losses that keep the colours of a picture near those of another."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.losses.pixel import difference
from animegen.nn.colour import rgb_to_lab, rgb_to_yuv


class YUVColour(nn.Module):
    """AnimeGAN's colour reconstruction: L1 on Y, Huber on U and on V, of RGB images in [-1,1].

    Args:
        luma: factor of the Y part.
        chroma: factor of the U and V parts. Raising it is the remedy for low saturation.
        pool: side in pixels of the squares whose mean colours are compared; 1 compares pixels, as published. A coarse
            comparison keeps the colours without asking for the photo's texture, which the other terms are to remove.

    The Huber threshold is 1, which differences of U and V reach only at opposite ends of their range: in practice
    half the squared difference.
    """

    def __init__(self, luma: float = 1.0, chroma: float = 1.0, pool: int = 1) -> None:
        super().__init__()
        self.luma = luma
        self.chroma = chroma
        self.pool = pool

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W)."""
        if self.pool > 1:
            image, reference = F.avg_pool2d(image, self.pool), F.avg_pool2d(reference, self.pool)
        y, u, v = difference(rgb_to_yuv(image), rgb_to_yuv(reference), self).unbind(1)
        return self.luma * y.abs().mean() + self.chroma * (_huber(u) + _huber(v))


def _huber(x: Tensor) -> Tensor:
    return F.huber_loss(x, x.new_zeros(()).expand_as(x))


class LabColour(nn.Module):
    """AnimeGANv3's colour reconstruction: L1 on L*/100, a*/255 and b*/255, of RGB images in [-1,1].

    Args:
        luma: factor of the L part, 2 in AnimeGANv3.
        chroma: factor of the a and b parts.
    """

    def __init__(self, luma: float = 2.0, chroma: float = 1.0) -> None:
        super().__init__()
        self.luma = luma
        self.chroma = chroma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W)."""
        lab = difference(rgb_to_lab(image), rgb_to_lab(reference), self).abs().mean((0, 2, 3))
        return self.luma * lab[0] / 100 + self.chroma * (lab[1] + lab[2]) / 255
