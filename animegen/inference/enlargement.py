"""Drawings made small and enlarged, so that their lines are wide enough to be seen on large images."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

#: Longer side in pixels of an image whose lines, two to three pixels wide, are still seen when it fills a screen.
VISIBLE = 1200
#: Rows that are enlarged at a time, so that the memory does not grow with the image.
ROWS = 256


def usual_width(height: int, width: int) -> float:
    """Return the line width, in steps of 1/2 and at least 1, at which the lines of an image of that size are seen."""
    return max(1.0, math.floor(2 * max(height, width) / VISIBLE + 0.5) / 2)


def enlarge(drawing: Tensor, height: int, width: int) -> Tensor:
    """Enlarge a drawing with crisp edges.

    Linear interpolation makes edges as wide as the factor. Between the darkest and the brightest value of its
    surroundings, each value is therefore moved away from their mean: edges become narrow, while plain areas and even
    gradients keep their values. (Bicubic interpolation would draw a halo round each line.)

    Args:
        drawing: uint8 (3,h,w), or float32 in [-1,1].
        height: of the result, at least h.
        width: of the result, at least w.

    Returns:
        (3,height,width) of the same type.
    """
    small = drawing.shape[-2:]
    factor = max(height / small[0], width / small[1])
    radius = max(1, round(0.75 * factor))
    margin = radius + math.ceil(2 * factor)  # of the rows that the last ones depend on
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    enlarged = torch.empty(3, height, width, dtype=drawing.dtype)
    for channel, target in zip(drawing, enlarged, strict=True):
        source = Image.fromarray(channel.float().contiguous().numpy())
        for top in range(0, height, ROWS):
            bottom = min(top + ROWS, height)
            above, below = max(0, top - margin), min(height, bottom + margin)
            box = (0, above * small[0] / height, small[1], below * small[0] / height)
            soft = np.array(source.resize((width, below - above), Image.Resampling.BILINEAR, box))
            low, high = cv2.erode(soft, disc), cv2.dilate(soft, disc)
            place = (soft - low) / np.maximum(high - low, 1e-6)
            crisp = torch.from_numpy(low + (high - low) * np.clip((place - 0.5) * factor + 0.5, 0, 1))
            crisp = crisp[top - above :][: bottom - top]
            target[top:bottom] = crisp.clamp(-1, 1) if target.is_floating_point() else crisp.round()
    return enlarged
