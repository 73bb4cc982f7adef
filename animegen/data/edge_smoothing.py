"""Edge-smoothed anime, the negative samples that teach a discriminator to require sharp lines.

CartoonGAN and AnimeGAN prepare these images on disk by blurring the surroundings of Canny edges. Here they are computed
for batches on their device, fast enough for every training step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.media.images import to_uint8

# BT.601 luma in units of 2**-15 with a sum of exactly 2**15, as in OpenCV.
_RED, _GREEN, _BLUE, _LUMA_SHIFT = 9798, 19235, 3735, 15
# tan(22.5 degrees) in units of 2**-15, to classify directions without computing an angle.
_TAN, _TAN_SHIFT = 13573, 15
# OpenCV's 5x5 Gaussian with default sigma is the outer product of this vector with itself.
_GAUSS = (1, 4, 6, 4, 1)
# Passes of hysteresis between checks for convergence, each of which synchronises an accelerator.
_PASSES = 4


def edge_smooth(images: Tensor, low: int = 100, high: int = 200) -> Tensor:
    """Blur the surroundings of edges: replace pixels within two pixels (5x5) of a Canny edge by a 5x5 Gaussian mean.

    Args:
        images: ``(B, 3, H, W)`` RGB, uint8, or float in [-1, 1] (edges are then found in the image rounded to
            uint8); H and W at least 3.
        low: lower Canny threshold, in grey levels of the L1 norm of the 3x3 Sobel gradient.
        high: upper Canny threshold.

    Returns:
        Images of the same shape and type; uint8 is rounded.
    """
    mask = dilate(canny(grey(images if images.dtype == torch.uint8 else to_uint8(images)), low, high), 2)
    return torch.where(mask[:, None], gaussian_5x5(images), images)


def grey(images: Tensor) -> Tensor:
    """Return luma, int32 ``(B, H, W)`` in [0, 255], of uint8 ``(B, 3, H, W)`` RGB."""
    red, green, blue = images.to(torch.int32).unbind(1)
    return (red * _RED + green * _GREEN + blue * _BLUE + 2 ** (_LUMA_SHIFT - 1)) >> _LUMA_SHIFT


def canny(luma: Tensor, low: int = 100, high: int = 200) -> Tensor:
    """Find edges as ``cv2.Canny(luma, low, high)`` does, bit for bit.

    3x3 Sobel gradient (replicated border) with the L1 norm, non-maximum suppression in four directions,
    hysteresis over eight neighbours, without initial blur.

    Args:
        luma: int32 ``(B, H, W)`` in [0, 255].
        low: threshold of weak edges, which are kept if connected to strong ones.
        high: threshold of strong edges.

    Returns:
        bool ``(B, H, W)``.
    """
    p = F.pad(luma[:, None].float(), (1, 1, 1, 1), mode="replicate")[:, 0].to(torch.int32)
    across = p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:]  # smoothed along y
    along = p[..., :-2] + 2 * p[..., 1:-1] + p[..., 2:]  # smoothed along x
    dx = across[..., 2:] - across[..., :-2]
    dy = along[:, 2:] - along[:, :-2]
    ax, ay = dx.abs(), dy.abs()
    norm = ax + ay

    height, width = norm.shape[-2:]
    framed = F.pad(norm, (1, 1, 1, 1))

    def neighbour(y: int, x: int) -> Tensor:
        return framed[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    steep = ay << _TAN_SHIFT
    flat_limit = ax * _TAN  # tan 22.5
    steep_limit = flat_limit + (ax << (_TAN_SHIFT + 1))  # tan 67.5 = tan 22.5 + 2
    # On a plateau the first pixel wins across and down, none on a diagonal.
    horizontal = (norm > neighbour(0, -1)) & (norm >= neighbour(0, 1))
    vertical = (norm > neighbour(-1, 0)) & (norm >= neighbour(1, 0))
    rising = (norm > neighbour(-1, 1)) & (norm > neighbour(1, -1))
    falling = (norm > neighbour(-1, -1)) & (norm > neighbour(1, 1))
    diagonal = torch.where((dx ^ dy) < 0, rising, falling)
    largest = torch.where(steep < flat_limit, horizontal, torch.where(steep > steep_limit, vertical, diagonal))
    possible = largest & (norm > low)
    return _grow(possible & (norm > high), possible)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Grow a bool mask ``(B, H, W)`` by a square of side ``2 * radius + 1``."""
    for axis in (1, 2):
        grown = mask.clone()
        length = mask.shape[axis]
        for shift in range(1, min(radius, length - 1) + 1):
            grown.narrow(axis, shift, length - shift).logical_or_(mask.narrow(axis, 0, length - shift))
            grown.narrow(axis, 0, length - shift).logical_or_(mask.narrow(axis, shift, length - shift))
        mask = grown
    return mask


def gaussian_5x5(images: Tensor) -> Tensor:
    """Blur ``(B, 3, H, W)`` by [1, 4, 6, 4, 1] / 16 along both axes, with reflection padding; uint8 is rounded."""
    whole = images.dtype == torch.uint8
    # Sums of uint8 stay below 2**16, so float32 holds them exactly.
    wide = F.pad(images.float(), (2, 2, 2, 2), mode="reflect")
    height, width = images.shape[-2:]
    rows = sum((w * wide[..., i : i + height, :] for i, w in enumerate(_GAUSS)), torch.zeros((), device=wide.device))
    mean = sum((w * rows[..., i : i + width] for i, w in enumerate(_GAUSS)), torch.zeros((), device=wide.device)) / 256
    # Halves are rounded up, as OpenCV does.
    return (mean + 0.5).floor().to(torch.uint8) if whole else mean.to(images.dtype)


def _grow(sure: Tensor, possible: Tensor) -> Tensor:
    """Add the weak pixels that are connected to strong ones."""
    while True:
        grown = sure
        for _ in range(_PASSES):
            grown = dilate(grown, 1) & possible
        if torch.equal(grown, sure):
            return grown
        sure = grown
