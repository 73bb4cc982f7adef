"""Whether drawings belong to the frames that their names say, by the edges of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.data.keyframes.project import Frames, spread

SIDE = 128
"""Shorter side in pixels of the compared images."""
REACH = 12
"""Frames on each side of a drawing's own that are all compared."""
ELSEWHERE = 48
"""Evenly spaced frames of the whole clip that are compared as well."""
MARGIN = 0.04
"""Smallest difference of two correlations that is meaningful.

Measured on four videos with drawings of a shipped look: a drawing that is moved by three pixels fits a wrong frame
better by at most 0.02, and its neighbours fit worse by 0.09 to 0.11 where the camera moves.
"""
LEAST = 0.3
"""Correlation below which a drawing says nothing about its frame; drawings of the four videos reached 0.47 to 0.97."""


def misplaced(clip: Frames, drawings: Mapping[int, Tensor], names: Sequence[str]) -> list[str]:
    """Return a sentence for each drawing whose edges fit another frame clearly better than its own.

    Args:
        clip: frames, uint8 (3, H, W).
        drawings: number of the frame -> drawing, uint8 (3, H, W) of the same size.
        names: names of the frames.
    """
    known: dict[int, np.ndarray] = {}

    def fit(lines: np.ndarray, number: int) -> float:
        if number not in known:
            known[number] = edges(clip[number])
        return float((lines * known[number]).sum())

    found = []
    for number, drawing in drawings.items():
        lines = edges(drawing)
        near = range(max(0, number - REACH), min(len(clip), number + REACH + 1))
        fits = {other: fit(lines, other) for other in {*near, *spread(ELSEWHERE, len(clip))}}
        best = max(fits, key=lambda other: fits[other])
        for other in range(max(0, best - REACH), min(len(clip), best + REACH + 1)):
            fits.setdefault(other, fit(lines, other))
        best = max(fits, key=lambda other: fits[other])
        if fits[best] > max(fits[number] + MARGIN, LEAST):
            found.append(
                f"the drawing '{names[number]}' fits the frame '{names[best]}' better than the one of its name (edges"
                f" correlate by {fits[best]:.2f} and {fits[number]:.2f}): rename it, if it was painted over that frame."
            )
    return found


def edges(image: Tensor) -> np.ndarray:
    """Return the edges of an image, uint8 (3, H, W), as a map (h, w) of mean 0 and length 1.

    Square roots of gradients, so that a few strong outlines do not decide alone, without their local mean, so that
    texture does not.
    """
    grey = image.float().mean(0, keepdim=True)[None]
    scale = SIDE / min(grey.shape[-2:])
    if scale < 1:
        size = [round(side * scale) for side in grey.shape[-2:]]
        grey = torch.nn.functional.interpolate(grey, size, mode="bilinear", antialias=True)
    smooth = cv2.GaussianBlur(grey[0, 0].numpy(), (0, 0), 1.0)
    strength = np.sqrt(np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)))
    strength = strength - cv2.GaussianBlur(strength, (0, 0), SIDE / 16)
    strength = strength - strength.mean()
    return strength / max(float(np.linalg.norm(strength)), 1e-9)
