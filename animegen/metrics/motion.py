"""How far things move between two frames, and the classes in which benchmarks report it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.curation.facts import MOST, small_grey
from animegen.media.images import to_uint8

#: Upper limits of the classes, as shares of the picture's width: 10 and 40 of 1024 pixels, those between which the MPI
#: Sintel flow benchmark divides (Butler et al. 2012; s0-10, s10-40, s40+).
LIMITS = {"small": 10 / 1024, "medium": 40 / 1024, "large": float("inf")}


def motion_size(first: Tensor, last: Tensor) -> Tensor:
    """Return how far things move from one frame to the other, as a share of the width, (B,) on the CPU.

    It is the 98th percentile of the lengths of classical optical flow (DIS) at a width of 256 pixels, as `animegen
    prepare` measures it. It knows nothing of any model; what leaves the picture or appears counts by what flow makes
    of it.

    Args:
        first: (B,3,H,W) in [-1,1].
        last: the same.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    sizes = []
    for pair in zip(*(to_uint8(frames).cpu().permute(0, 2, 3, 1).numpy() for frames in (first, last)), strict=True):
        small = [small_grey(picture) for picture in pair]
        field = np.asarray(flow.calc(*small, None))  # type: ignore[call-overload]
        sizes.append(np.percentile(np.linalg.norm(field, axis=2), MOST) / small[0].shape[1])
    return torch.tensor(sizes, dtype=torch.float64)


def motion_class(size: float) -> str:
    """Return the class of a motion: ``small``, ``medium`` or ``large``."""
    return next(name for name, limit in LIMITS.items() if size <= limit)
