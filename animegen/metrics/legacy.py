"""Metrics as computed by papers on animation frame interpolation, for comparison with their tables only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ssim_atd_legacy(output: Tensor, truth: Tensor) -> Tensor:
    """Return the SSIM of the ATD-12K tables (Li et al. 2021), (B,), of images (B,3,H,W) in [-1,1].

    That code calls an old scikit-image with an option that did not exist there. So the window is uniform, 7x7 (sample
    covariance), and the range of floats in [0,1] is assumed to be 2, which multiplies the constants by four. Values are
    far too high: 0.958 where SSIM is about 0.9. A border of 3 pixels is excluded, and channels are averaged.
    """
    x, y = ((image.double() + 1) / 2 for image in (output, truth))
    window, spread = 7, 49 / 48  # of the sample
    mean_x, mean_y = (F.avg_pool2d(image, window, 1) for image in (x, y))
    var_x = spread * (F.avg_pool2d(x * x, window, 1) - mean_x**2)
    var_y = spread * (F.avg_pool2d(y * y, window, 1) - mean_y**2)
    both = spread * (F.avg_pool2d(x * y, window, 1) - mean_x * mean_y)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    value = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    value = value / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return value.flatten(1).mean(1).float()


def interpolation_error(output: Tensor, truth: Tensor) -> Tensor:
    """Return the interpolation error of the Middlebury benchmark, (B,), of images (B,3,H,W) in [-1,1].

    This is the mean over all pixels of the Euclidean colour difference in 8-bit levels, after rounding.
    """
    levels = [torch.round((image.float() + 1) * 127.5) for image in (output, truth)]
    return (levels[0] - levels[1]).norm(dim=1).flatten(1).mean(1)
