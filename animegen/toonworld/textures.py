"""Photo textures and shading of the atlas tiles in the local space of their parts.

Noise is defined on grids whose cells are in units of 1/128 of the frame height: textures do not depend on the
resolution. They move with their parts and therefore follow the true flow exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from animegen.toonworld.streams import Stream

CELL = 1 / 128  # unit of texture sizes, in frame heights
MARGIN = 2  # texels around a part


@dataclass(frozen=True)
class Canvas:
    """The raster of a tile that covers ``bounds`` (x0, y0, x1, y1 in local units) with a margin on each side."""

    bounds: tuple[float, float, float, float]
    density: float  # texels per frame height

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in texels."""
        x0, y0, x1, y1 = self.bounds
        return tuple(int(np.ceil(side * self.density)) + 2 * MARGIN for side in (x1 - x0, y1 - y0))  # type: ignore[return-value]

    @property
    def origin(self) -> np.ndarray:
        """Local position (2,) of the centre of the first texel."""
        return np.array(self.bounds[:2]) - (MARGIN - 0.5) / self.density

    def coordinates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return local x (1, W) and y (H, 1) float32 of the texel centres."""
        (width, height), (x, y) = self.size, self.origin
        columns = np.float32(x) + np.arange(width, dtype=np.float32) / np.float32(self.density)
        rows = np.float32(y) + np.arange(height, dtype=np.float32) / np.float32(self.density)
        return columns[None, :], rows[:, None]

    def noise(self, stream: Stream, cell_x: float, cell_y: float) -> np.ndarray:
        """Return smooth noise (H, W) float32 in about [-1, 1] with cells of ``cell_x`` x ``cell_y`` in units of CELL.

        The grid is aligned with the bounds and independent of the resolution.
        """
        x0, y0, x1, y1 = self.bounds
        cell = np.array([cell_x, cell_y]) * CELL
        columns, rows = (int(np.ceil(side / c)) + 4 for side, c in zip((x1 - x0, y1 - y0), cell, strict=True))
        step = 1 / (self.density * cell)
        first = (self.origin - [x0, y0]) / cell + 2.0
        matrix = np.array([[step[0], 0, first[0]], [0, step[1], first[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(stream.grid(rows, columns), matrix, self.size, flags=flags, borderMode=cv2.BORDER_REFLECT)


def texture(kind: str, canvas: Canvas, stream: Stream) -> np.ndarray:
    """Return the zero-mean texture (H, W) of a material, in about [-1, 1]."""
    noise = canvas.noise
    x, y = canvas.coordinates()
    if kind == "skin":
        return noise(stream, 1.4, 1.4)
    if kind == "hair":
        return 0.50 * noise(stream, 1.1, 16) + 0.20 * noise(stream, 3, 20)
    if kind == "cloth":
        return _cloth(canvas, stream)
    if kind == "grass":
        return 0.40 * noise(stream, 1.1, 1.1) + 0.55 * noise(stream, 2, 4) + 0.45 * noise(stream, 30, 8)
    if kind == "ground":
        return 0.50 * noise(stream, 1.1, 1.1) + 0.35 * noise(stream, 4, 2) + 0.45 * noise(stream, 30, 8)
    if kind == "foliage":
        return 0.60 * noise(stream, 1.4, 1.4) + 0.50 * noise(stream, 4, 4) + 0.25 * noise(stream, 12, 12)
    if kind == "rock":
        return 0.50 * noise(stream, 2, 2) + 0.50 * noise(stream, 5, 8) + 0.40 * noise(stream, 14, 14)
    if kind == "bark":
        return 0.60 * noise(stream, 1.2, 8) + 0.40 * noise(stream, 2.5, 3)
    if kind == "brick":
        return _brick(x / CELL, y / CELL) + 0.35 * noise(stream, 1.2, 1.2) + 0.35 * noise(stream, 9, 9)
    if kind == "cloud":
        return noise(stream, 8, 4)
    return np.zeros((y.size, x.size), np.float32)


def _cloth(canvas: Canvas, stream: Stream) -> np.ndarray:
    """Return woven noise, plain or with stripes or checks."""
    pattern = stream.below(4)
    period = stream.uniform(5, 9) * CELL
    x, y = canvas.coordinates()
    weave = 0.50 * canvas.noise(stream, 1.3, 1.3) + 0.12 * canvas.noise(stream, 4, 4)
    rows = np.sin(2 * np.pi / period * y)
    columns = np.sin(2 * np.pi / period * x)
    if pattern == 0:
        return weave + 0.45 * rows
    if pattern == 1:
        return weave + 0.35 * (rows + columns)
    return weave + 0 * rows


def _brick(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return bricks of 5 x 10 cells with light joints, every second course shifted by half a brick."""
    course = np.floor(y / 5)
    across = (x + 5 * (course % 2)) % 10
    down = y % 5
    joint = np.minimum(np.minimum(across, 10 - across), np.minimum(down, 5 - down))
    return 0.8 * np.exp(-((joint / 0.7) ** 2)) - 0.25


# Cell size (1/128 frame height) and amplitude (fraction of the rounding radius) of the height noise.
RELIEF = {
    "cloth": (6.0, 0.10),
    "foliage": (10.0, 0.22),
    "rock": (9.0, 0.30),
    "hair": (8.0, 0.08),
    "bark": (5.0, 0.15),
    "cloud": (9.0, 0.25),
}


def shade(kind: str, mask: np.ndarray, canvas: Canvas, relief: str, light: np.ndarray, stream: Stream) -> np.ndarray:
    """Return the shade value (H, W) in [0, 1] of a tile.

    ``kind`` as in ``Material.shade``; ``mask`` (H, W) uint8 is 255 inside the part; ``light`` (3,) is the unit
    vector towards the light in (right, down, towards the viewer).
    """
    x, _ = canvas.coordinates()
    if kind == "flat":
        return np.full(mask.shape, 0.55, np.float32)
    if kind == "ground":
        return np.clip(0.6 + 0.22 * canvas.noise(stream, 34, 9) + 0.10 * canvas.noise(stream, 13, 5), 0, 1)
    if kind == "wall":
        ramp = (x - x.mean()) / max(float(np.ptp(x)), 1e-6)
        return np.broadcast_to(np.clip(0.62 + 0.4 * np.sign(light[0]) * ramp, 0, 1), mask.shape).astype(np.float32)
    return _cushion(mask, canvas, relief, light, stream)


def _cushion(mask: np.ndarray, canvas: Canvas, relief: str, light: np.ndarray, stream: Stream) -> np.ndarray:
    """Return the shade of a rounded part whose height derives from the distance to the outline."""
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    radius = max(min(float(np.max(distance)), 0.35 * min(mask.shape), 0.20 * canvas.density / 1.25), 1.0)
    rise = np.minimum(distance / radius, 1.0)
    height = np.sqrt(1 - (1 - rise) ** 2) * (0.8 * radius)
    if relief in RELIEF:
        cell, amplitude = RELIEF[relief]
        height += canvas.noise(stream, cell, cell) * (amplitude * min(radius, 3 * cell * CELL * canvas.density))
    height = cv2.GaussianBlur(height, (0, 0), max(0.1 * radius, 0.6))
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
    towards = light[2] - light[0] * slope_x - light[1] * slope_y
    facing = towards / np.sqrt(1 + slope_x**2 + slope_y**2)
    return np.clip(0.5 * facing + 0.32, 0, 1).astype(np.float32)
