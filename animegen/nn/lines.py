"""Lines of drawings, and how far every pixel lies from them.

Lines are found by a difference of Gaussians, as EISAI does (Chen and Zwicker 2022): a pixel belongs to one if it is
darker than its wider surroundings. Distances are exact (SciPy, on the CPU, no gradient) for truths and scores, and by
repeated dilation (any device, with gradient) for outputs.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.colour import luma
from animegen.nn.precision import at_least_float32

_RATIO, _THRESHOLD = 1.6, 0.005
"""Ratio of the two Gaussians, and by how much (of the range from black to white) a line is darker."""

REACH = 36
"""At a distance of the longer side over this many the normalised distance has come to 1 - 1/e (EISAI: 540/15)."""


def line_strength(image: Tensor, sigma: float = 1.0) -> Tensor:
    """Return how much darker than its wider surroundings each pixel is, (B,1,H,W), black to white being 1.

    Args:
        image: (B,3,H,W) in [-1,1].
        sigma: of the smaller Gaussian in pixels; about half the width of the lines. EISAI takes 1 for its score and
            H/540 for its loss, which on small pictures would see nothing.
    """
    with torch.autocast(image.device.type, enabled=False):
        grey = (luma(at_least_float32(image)) + 1) / 2
        grey = grey if grey.ndim == 4 else grey.unsqueeze(1)
        return _blurred(grey, _RATIO * sigma) - _blurred(grey, sigma)


def line_mask(image: Tensor, sigma: float = 1.0) -> Tensor:
    """Return which pixels of images (B,3,H,W) in [-1,1] belong to lines, bool (B,1,H,W)."""
    return line_strength(image, sigma) > _THRESHOLD


def soft_lines(image: Tensor, sigma: float = 1.0, slope: float = 50.0) -> Tensor:
    """Return how much every pixel counts as a line, 0 to 1, with gradient: ``tanh(slope strength)`` where it is dark.

    With the usual slope a pixel at the threshold of :func:`line_mask` counts by 24 %, one in a clear line by all of it,
    and one in an even area not at all.
    """
    return torch.tanh(slope * line_strength(image, sigma).clamp_min(0))


@torch.no_grad()
def distance(lines: Tensor) -> Tensor:
    """Return the Euclidean distance in pixels from every pixel to the nearest line, float32 (B,1,H,W).

    A picture without lines is everywhere as far from one as its diagonal is long.

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
    """Return EISAI's NEDT of lines, bool (B,1,H,W): ``1 - exp(-36 distance / longer side)``, 0 on lines, up to 1."""
    return 1 - torch.exp(-REACH / max(lines.shape[-2:]) * distance(lines))


def soft_normalised_distance(lines: Tensor) -> Tensor:
    """Return nearly the same of shares (B,1,H,W) in [0,1], with gradient.

    What a line gives decays by ``exp(-36 / longer side)`` to each of the four neighbours and by that to the power of
    sqrt(2) to the diagonal ones, so that "equally far" is an octagon: distances come out up to 8 % too long.
    It ends where the exact value is above 95 %.
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


def chamfer(output: Tensor, truth: Tensor) -> Tensor:
    """Return EISAI's Chamfer line distance (B,) of images (B,3,H,W) in [-1,1]; lower is better, 0 = the same lines.

    Half of the sum, over both directions, of the mean over all pixels of one picture's lines times the distance to the
    other's, divided by the diagonal. Values are small: about 1e-5 to 1e-3.
    """
    mine, theirs = line_mask(output), line_mask(truth)
    there = (theirs * distance(mine)).flatten(1).mean(1)
    back = (mine * distance(theirs)).flatten(1).mean(1)
    return (there + back) / (2 * math.hypot(*output.shape[-2:]))


def _blurred(grey: Tensor, sigma: float) -> Tensor:
    """Blur (B,1,H,W) by a Gaussian cut off at 4 sigma, edges repeated."""
    radius = max(int(4 * sigma), 1)
    places = torch.arange(-radius, radius + 1, device=grey.device, dtype=grey.dtype)
    kernel = torch.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / kernel.sum()
    grey = F.pad(grey, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(grey, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
