"""Line detection in drawings, and distance maps to the lines.

Lines are detected by a difference of Gaussians, as in EISAI (Chen and Zwicker 2022): pixels darker than their wider
surroundings. Distances are exact (SciPy, on the CPU, not differentiable), or computed by repeated dilation (any device,
differentiable).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.colour import luma
from animegen.nn.precision import at_least_float32

_RATIO, _THRESHOLD = 1.6, 0.005
"""Ratio of the two Gaussians, and the threshold on their difference, with black to white being 1."""

REACH = 36
"""The normalised distance reaches 1 - 1/e at 1/36 of the longer side (EISAI: 540/15)."""


def line_strength(image: Tensor, sigma: float = 1.0) -> Tensor:
    """Return the difference of Gaussians (B,1,H,W): positive where darker than the surroundings, black to white is 1.

    Args:
        image: (B,3,H,W) in [-1,1].
        sigma: standard deviation of the smaller Gaussian in pixels, about half the width of the lines. EISAI uses 1
            for its score and H/540 for its loss, which is too small for small images.
    """
    with torch.autocast(image.device.type, enabled=False):
        grey = (luma(at_least_float32(image)) + 1) / 2
        grey = grey if grey.ndim == 4 else grey.unsqueeze(1)
        return _blurred(grey, _RATIO * sigma) - _blurred(grey, sigma)


def line_mask(image: Tensor, sigma: float = 1.0) -> Tensor:
    """Return a bool mask (B,1,H,W) of the lines of images (B,3,H,W) in [-1,1]."""
    return line_strength(image, sigma) > _THRESHOLD


def soft_lines(image: Tensor, sigma: float = 1.0, slope: float = 50.0) -> Tensor:
    """Return a differentiable line mask in [0,1]: ``tanh(slope * max(line_strength, 0))``.

    With the default slope it is 0.24 at the threshold of :func:`line_mask`.
    """
    return torch.tanh(slope * line_strength(image, sigma).clamp_min(0))


@torch.no_grad()
def distance(lines: Tensor) -> Tensor:
    """Return the Euclidean distance in pixels from every pixel to the nearest line, float32 (B,1,H,W).

    If there are no lines, it is the length of the diagonal.

    Args:
        lines: bool (B,1,H,W).
    """
    from scipy.ndimage import distance_transform_edt  # slow to import, and not needed to apply a model

    height, width = lines.shape[-2:]
    out = []
    for mask in lines[:, 0].cpu().numpy():
        if mask.any():
            out.append(distance_transform_edt(~mask).astype(np.float32))
        else:
            out.append(np.full((height, width), math.hypot(height, width), np.float32))
    return torch.from_numpy(np.stack(out)).unsqueeze(1).to(lines.device)


def normalised_distance(lines: Tensor) -> Tensor:
    """Return EISAI's normalised distance to lines, bool (B,1,H,W): ``1 - exp(-36 distance / longer side)``."""
    return _normalised(distance(lines))


def _normalised(distances: Tensor) -> Tensor:
    return 1 - torch.exp(-REACH / max(distances.shape[-2:]) * distances)


def soft_normalised_distance(lines: Tensor) -> Tensor:
    """Return a differentiable approximation of :func:`normalised_distance` for soft masks (B,1,H,W) in [0,1].

    Octagonal distance, up to 8 % too long: per step the mask decays by ``exp(-36 / longer side)`` to the four
    neighbours, and by that to the power of sqrt(2) to the diagonal ones. It is 1 where the exact value exceeds 95 %.
    """
    rate = REACH / max(lines.shape[-2:])
    steps = math.ceil(3 / rate)
    near = lines
    for _ in range(steps):
        across = F.max_pool2d(near, (1, 3), 1, (0, 1))
        down = F.max_pool2d(near, (3, 1), 1, (1, 0))
        square = F.max_pool2d(across, (3, 1), 1, (1, 0))
        straight = torch.maximum(across, down)
        near = torch.maximum(near, torch.maximum(math.exp(-rate) * straight, math.exp(-math.sqrt(2) * rate) * square))
    return 1 - near


class LineDifference(NamedTuple):
    """Differences between the lines of images; lower is better, 0 = the same lines.

    Attributes:
        chamfer: (B,), EISAI's Chamfer line distance: the mean over both directions and all pixels of one image's line
            mask times the distance to the other's lines, divided by the diagonal; about 1e-5 to 1e-3.
        nedt: (B,) in [0,1], mean absolute difference of EISAI's normalised distances to the lines, see
            :func:`normalised_distance`. The Chamfer distance counts pixels on lines only, and has no bound for a line
            that the other image lacks; this one counts all pixels, and each for at most 1.
    """

    chamfer: Tensor
    nedt: Tensor


def line_difference(output: Tensor, truth: Tensor) -> LineDifference:
    """Compare the lines of images (B,3,H,W) in [-1,1]."""
    mine, theirs = line_mask(output), line_mask(truth)
    to_mine, to_theirs = distance(mine), distance(theirs)
    there = (theirs * to_mine).flatten(1).mean(1)
    back = (mine * to_theirs).flatten(1).mean(1)
    nedt = (_normalised(to_mine) - _normalised(to_theirs)).abs().flatten(1).mean(1)
    return LineDifference((there + back) / (2 * math.hypot(*output.shape[-2:])), nedt)


def _blurred(grey: Tensor, sigma: float) -> Tensor:
    """Blur (B,1,H,W) by a Gaussian truncated at 4 sigma, with replicated borders."""
    radius = max(int(4 * sigma), 1)
    places = torch.arange(-radius, radius + 1, device=grey.device, dtype=grey.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    grey = F.pad(grey, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(grey, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
