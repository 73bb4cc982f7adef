"""Colour reconstruction losses."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.losses.pixel import difference
from animegen.nn.colour import rgb_to_lab, rgb_to_yuv


class YUVColour(nn.Module):
    """AnimeGAN's colour reconstruction: L1 loss on Y, Huber loss on U and V, of RGB images in [-1,1].

    Args:
        luma: weight of Y.
        chroma: weight of U and V. Raise it against low saturation.
        pool: side in pixels of average pooling before the comparison; 1 compares pixels, as published. Larger values
            preserve colours but not the photo's texture.

    The Huber threshold of 1 is at the end of the range of U and V: in practice the loss is half the squared difference.
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
        luma: weight of L*, 2 in AnimeGANv3.
        chroma: weight of a* and b*.
    """

    def __init__(self, luma: float = 2.0, chroma: float = 1.0) -> None:
        super().__init__()
        self.luma = luma
        self.chroma = chroma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W)."""
        lab = difference(rgb_to_lab(image), rgb_to_lab(reference), self).abs().mean((0, 2, 3))
        return self.luma * lab[0] / 100 + self.chroma * (lab[1] + lab[2]) / 255
