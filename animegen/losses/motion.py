"""Multi-scale and census losses for frame interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.losses.pixel import difference
from animegen.nn.colour import luma


class Laplacian(nn.Module):
    """Mean absolute differences of the levels of Laplacian pyramids, weighted by 2^level and summed.

    After Bojanowski et al. 2018 and RIFE. The last level is the low-pass residual.

    Args:
        levels: maximum number of levels; fewer for small images.
    """

    def __init__(self, levels: int = 5) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,C,H,W)."""
        rest = difference(image, reference, self)  # the pyramid is linear
        total = rest.new_zeros(())
        for level in range(self.levels):
            last = level == self.levels - 1 or min(rest.shape[-2:]) < 4
            smaller = rest if last else _binomial(rest)[..., ::2, ::2]
            band = rest
            if not last:
                band = rest - F.interpolate(smaller, rest.shape[-2:], mode="bilinear", align_corners=False)
            total = total + 2**level * band.abs().mean()
            rest = smaller
            if last:
                break
        return total


def _binomial(x: Tensor) -> Tensor:
    """Blur (B,C,H,W) by the 5-tap binomial filter (1, 4, 6, 4, 1)/16, with reflection padding."""
    channels = x.shape[1]
    kernel = x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    x = F.conv2d(x, kernel.view(1, 1, 1, 5).expand(channels, 1, 1, 5), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, 5, 1).expand(channels, 1, 5, 1), groups=channels)


class Census(nn.Module):
    """Soft Hamming distance of census transforms (Meister et al. 2018), insensitive to brightness.

    Each neighbour's luma difference d from the pixel is mapped to ``s = d / sqrt(0.81 + d^2)``; the distance of two
    images is ``(s - s')^2 / (0.1 + (s - s')^2)``, averaged over neighbours and inner pixels.

    Args:
        size: odd side of the window.
        scale: range of the luma. The constants are designed for 255; IFRNet and AMT use 1.
    """

    def __init__(self, size: int = 7, scale: float = 255.0) -> None:
        super().__init__()
        self.size, self.scale = size, scale

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W) in [-1,1], both sides at least ``size``."""
        difference(image, reference, self)
        with torch.autocast(image.device.type, enabled=False):
            gap = (self._signs(image) - self._signs(reference)).square()
            return (gap / (0.1 + gap)).mean()

    def _signs(self, image: Tensor) -> Tensor:
        grey = luma(image.float()).reshape(len(image), 1, *image.shape[-2:]) * (self.scale / 2)
        windows = F.unfold(grey, self.size)  # (B, size^2, inner pixels)
        middle = self.size**2 // 2
        d = windows - windows[:, middle : middle + 1]
        d = torch.cat([d[:, :middle], d[:, middle + 1 :]], 1)
        return d / torch.sqrt(0.81 + d.square())


class DeepSupervision(nn.Module):
    """Mean absolute differences of images of several sizes from the reference, with decreasing weights.

    The reference is resized to each image.

    Args:
        decay: ratio of the weights of successive images.
    """

    def __init__(self, decay: float = 0.5) -> None:
        super().__init__()
        self.decay = decay

    def forward(self, images: Sequence[Tensor], reference: Tensor) -> Tensor:
        """Compare images (B,3,h,w) of any sizes with one (B,3,H,W)."""
        total = reference.new_zeros((), dtype=torch.float32)
        for number, image in enumerate(images):
            target = F.interpolate(reference.float(), image.shape[-2:], mode="area")
            total = total + self.decay**number * difference(image, target, self).abs().mean()
        return total
