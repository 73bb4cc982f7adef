"""Outlines, (N, 2) float64 points, and poses, (T, 3, 3) matrices for T frames.

The unit of length is the frame height; y points down; positive angles rotate x towards y.
"""

from __future__ import annotations

import numpy as np

Number = float | np.ndarray


def pose(frames: int) -> np.ndarray:
    """Return ``frames`` identity matrices (frames, 3, 3)."""
    return np.tile(np.eye(3), (frames, 1, 1))


def _time(*values: Number) -> int:
    return max(np.size(value) for value in values)


def shift(x: Number, y: Number) -> np.ndarray:
    """Return translations (T, 3, 3); x and y are numbers or arrays over time."""
    matrix = pose(_time(x, y))
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def turn(angle: Number) -> np.ndarray:
    """Return rotations (T, 3, 3) by ``angle`` radians. Positive angles move a hanging limb towards -x."""
    matrix = pose(_time(angle))
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cosine, -sine, sine, cosine
    return matrix


def stretch(x: Number, y: Number) -> np.ndarray:
    """Return scalings (T, 3, 3) about the origin."""
    matrix = pose(_time(x, y))
    matrix[:, 0, 0], matrix[:, 1, 1] = x, y
    return matrix


def ease(s: np.ndarray) -> np.ndarray:
    """Quintic easing from 0 to 1 for s in [0, 1], with zero speed and acceleration at both ends."""
    return s**3 * (s * (6 * s - 15) + 10)


def ellipse(rx: float, ry: float, cx: float = 0.0, cy: float = 0.0, points: int = 20) -> np.ndarray:
    """Return an ellipse outline (points, 2)."""
    angle = np.arange(points) * (2 * np.pi / points)
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], 1)


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    """Return an axis-parallel rectangle (4, 2)."""
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def limb(length: float, top: float, bottom: float, points: int = 9) -> np.ndarray:
    """Return a tapered capsule that hangs from (0, 0) to (0, length), with radii ``top`` and ``bottom``."""
    upper = np.linspace(np.pi, 2 * np.pi, points)
    lower = np.linspace(0, np.pi, points)
    return np.concatenate(
        [
            np.stack([top * np.cos(upper), top * np.sin(upper)], 1),
            np.stack([bottom * np.cos(lower), length + bottom * np.sin(lower)], 1),
        ]
    )


def spline(points: np.ndarray | list[tuple[float, float]], steps: int = 5) -> np.ndarray:
    """Return the closed Catmull-Rom curve through (N, 2) points, ``steps`` samples per span."""
    p1 = np.asarray(points, dtype=float)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    s = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (p[:, None] for p in (p0, p1, p2, p3))
    curve = 0.5 * (2 * p1 + (p2 - p0) * s + (2 * p0 - 5 * p1 + 4 * p2 - p3) * s**2 + (3 * p1 - p0 - 3 * p2 + p3) * s**3)
    return curve.reshape(-1, 2)


def mirrored(right: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Complete the right half of a symmetric outline, from top to bottom, by its mirror image (x -> -x)."""
    return right + [(-x, y) for x, y in reversed(right) if x != 0.0]


def circles_outline(centres: np.ndarray, radii: np.ndarray, points: int = 72) -> np.ndarray:
    """Return the outline (points, 2) of a union of circles that is star-shaped with respect to the origin.

    Each direction uses the farthest intersection of its ray with any circle. Gaps between circles are bridged.
    """
    angle = np.arange(points) * (2 * np.pi / points)
    ray = np.stack([np.cos(angle), np.sin(angle)], 1)
    along = ray @ centres.T
    below_root = radii**2 - ((centres**2).sum(1) - along**2)
    reach = np.where(below_root >= 0, along + np.sqrt(np.maximum(below_root, 0)), 0).max(1)
    return ray * np.maximum(reach, 1e-3)[:, None]


def ridge(half_width: float, top: np.ndarray, bottom: float) -> np.ndarray:
    """Return a band from the curve ``top`` (N heights, evenly spaced over +-half_width) down to y = bottom."""
    x = np.linspace(-half_width, half_width, len(top))
    return np.concatenate([np.stack([x, top], 1), [[half_width, bottom], [-half_width, bottom]]])
