"""The extent of motion between two frames, and the classes in which benchmarks report it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.media.images import to_uint8

#: Width in pixels at which motion is measured.
WIDTH = 256
#: Percentile of the flow magnitudes that represents a pair: most of an image may be static while a small figure moves.
#: (The 95th percentile cannot distinguish a bird that opens its wings from static grass.)
PERCENTILE = 98
#: Upper limits of the classes, as shares of the image's width: 10 and 40 of 1024 pixels, as in the MPI Sintel flow
#: benchmark (Butler et al. 2012; s0-10, s10-40, s40+).
LIMITS = {"small": 10 / 1024, "medium": 40 / 1024, "large": float("inf")}


def small_gray(image: np.ndarray) -> np.ndarray:
    """Convert an image, uint8 (H,W,3) RGB, to grayscale (H',W') at most ``WIDTH`` pixels wide."""
    height, width = image.shape[:2]
    if width > WIDTH:
        image = cv2.resize(image, (WIDTH, max(16, round(height * WIDTH / width))), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)


def flow_extent(flow: np.ndarray) -> float:
    """Return the extent of a flow field, (H,W,2) in pixels, as a share of the width."""
    return float(np.percentile(np.linalg.norm(flow, axis=2), PERCENTILE)) / flow.shape[1]


def motion_size(first: Tensor, last: Tensor) -> Tensor:
    """Return the extent of motion from one frame to another, as a share of the width, (B,) on the CPU.

    It is measured by classical optical flow (DIS) at a width of 256 pixels, as in ``animegen prepare``, and is thus
    independent of any model. Pixels that leave or enter the image count with whatever flow is estimated there.

    Args:
        first: (B,3,H,W) in [-1,1].
        last: the same.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    sizes = []
    for pair in zip(*(to_uint8(frames).cpu().permute(0, 2, 3, 1).numpy() for frames in (first, last)), strict=True):
        before, after = (small_gray(image) for image in pair)
        sizes.append(flow_extent(np.asarray(flow.calc(before, after, None))))  # type: ignore[call-overload]
    return torch.tensor(sizes, dtype=torch.float64)


def motion_class(size: float) -> str:
    """Return the class of a motion: ``small``, ``medium`` or ``large``."""
    return next(name for name, limit in LIMITS.items() if size <= limit)
