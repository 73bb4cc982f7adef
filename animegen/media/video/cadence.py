"""Detection of held drawings: animation shows each drawing for one or more frames."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.media.video.small import shrunk

#: Two frames show the same drawing if ``a mean + b max + c > 0`` of their CIE Lab distances at a longer side of at most
#: 640 pixels: EISAI's fit to labelled frames (Chen and Zwicker 2022, released code). The maximum sees a blinking eye.
_MEAN, _MAX, _OFFSET, _SIDE = -2.1593, -0.2038, 4.0879, 640
#: Longest rhythm that is detected, in frames per drawing.
LONGEST_RHYTHM = 4
#: Share of the changes that must repeat at a lag for it to count as a rhythm.
_REGULAR = 0.6


def sameness(first: Tensor, second: Tensor) -> float:
    """Return a score for two frames, uint8 ``(3,H,W)``: above 0 they show the same drawing; 4.09 if they are equal.

    Noise of compression is forgiven, a small thing that moves is not. Compare with the first frame of a hold, not with
    the one before, else a slow pan would pass for a held drawing.
    """
    if torch.equal(first, second):
        return _OFFSET
    gap = np.linalg.norm(_lab(first) - _lab(second), axis=2)
    return float(_MEAN * gap.mean() + _MAX * gap.max() + _OFFSET)


def _lab(frame: Tensor) -> np.ndarray:
    """Return a downscaled frame in CIE Lab (L from 0 to 100), float32 (h, w, 3)."""
    height, width = frame.shape[1:]
    scale = _SIDE / max(height, width)
    if scale < 1:
        image = shrunk(frame.numpy(), *(max(1, round(side * scale)) for side in (height, width)))
    else:
        image = np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def same_drawing(first: Tensor, second: Tensor) -> bool:
    """Tell whether two frames, uint8 ``(3,H,W)``, show the same drawing apart from compression noise."""
    return sameness(first, second) > 0


def rhythm(changes: Sequence[bool]) -> int | None:
    """Return the number of frames per drawing in a shot, at most `LONGEST_RHYTHM`; ``None`` without a rhythm.

    It is the first lag at which most changes repeat (the autocorrelation of the changes), so pauses do not matter.

    Args:
        changes: for each frame of the shot whether it shows another drawing than the one before.
    """
    for lag in range(1, LONGEST_RHYTHM + 1):
        places = [n for n, changed in enumerate(changes) if changed and n + lag < len(changes)]
        if len(places) >= 2 and sum(changes[n + lag] for n in places) >= _REGULAR * len(places):
            return lag
    return None
