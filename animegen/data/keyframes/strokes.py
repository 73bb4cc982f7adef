"""Painting of a clip in brush strokes that move with its content: a look that depends on the place.

Each stroke is placed once and follows the optical flow, so no function of a single frame reproduces the painting.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.data.keyframes.guides import move_points
from animegen.data.sampler import counter_hash, counter_hash_tensor, uniform
from animegen.media.images import to_float
from animegen.media.video.flow import DISFlow
from animegen.nn.warp import consistent

#: Distance, length and width of the strokes of each layer in pixels, from the ground to the details.
LAYERS = ((7.0, 22.0, 9), (3.5, 12.0, 4))
#: Range of the differences between strokes in grey levels: common to all channels, and per channel.
LIGHTNESS, TINT = 44.0, 22.0


def strokes(clip: Tensor) -> Tensor:
    """Paint a clip, uint8 (T, 3, H, W) to the same shape and type.

    The direction of a stroke (along edges) and its shade are those of its birth; its colour is that of the content
    below. It ends where its point becomes occluded or leaves the frame; holes get new strokes.
    """
    layers = [_Layer(number, *sizes) for number, sizes in enumerate(LAYERS)]
    estimate, before, painted = DISFlow(), None, []
    for frame in clip:
        photo, pixels = to_float(frame)[None], np.ascontiguousarray(frame.permute(1, 2, 0).numpy())
        flows = None if before is None else (estimate(before, photo), estimate(photo, before))
        canvas = cv2.GaussianBlur(pixels, (0, 0), 4)
        for layer in layers:
            if flows is not None:
                layer.move(*flows)
            layer.fill(pixels)
            layer.paint(canvas, pixels)
        painted.append(torch.from_numpy(canvas).permute(2, 0, 1))
        before = photo
    return torch.stack(painted)


class _Layer:
    """Strokes of one size, in the order of their birth."""

    def __init__(self, number: int, distance: float, length: float, width: int) -> None:
        self.number, self.distance, self.length, self.width = number, distance, length, width
        self.points = np.zeros((0, 2), np.float32)
        #: Per stroke: half of its vector (x, y), shade, and place in the order of painting.
        self.looks = np.zeros((0, 6), np.float32)
        self.born = 0

    def move(self, there: Tensor, back: Tensor) -> None:
        """Move the strokes from one frame to the next; drop those that get lost, or too close to an older one."""
        x, y = self.points.round().astype(int).T
        seen = consistent(there, back)[0, 0].numpy()[y, x]
        points = move_points(torch.from_numpy(self.points[seen]), there).numpy()
        last = np.array(there.shape[:-3:-1]) - 1
        cells = np.floor(points / (self.distance / 2))
        kept = np.sort(np.unique(cells, axis=0, return_index=True)[1])
        kept = kept[((points[kept] >= 0) & (points[kept] <= last)).all(1)]
        self.points, self.looks = points[kept], self.looks[seen][kept]

    def fill(self, pixels: np.ndarray) -> None:
        """Add strokes in the holes, on a grid with random offsets."""
        height, width = pixels.shape[:2]
        free = np.full((height, width), 255, np.uint8)
        free[tuple(self.points.round().astype(int).T[::-1])] = 0
        gap = cv2.distanceTransform(free, cv2.DIST_L2, 3)
        rows, columns = (np.arange(self.distance / 2, side, self.distance) for side in (height, width))
        grid = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
        grid = grid[gap[tuple(grid.astype(int).T[::-1])] > self.distance]
        births = self.born + torch.arange(len(grid))
        self.born += len(grid)
        bits = counter_hash_tensor(counter_hash(self.number, "stroke"), births[:, None], torch.arange(8))
        draws = uniform(bits).numpy()
        points = (grid + self.distance / 2 * (draws[:, 6:] - 0.5)).clip(0, (width - 1, height - 1))
        x, y = points.round().astype(int).T
        angle = _direction(pixels)[y, x] + 0.6 * (draws[:, 0] - 0.5)
        half = 0.5 * self.length * (0.6 + 0.8 * draws[:, 1:2]) * np.stack([np.cos(angle), np.sin(angle)], 1)
        shade = LIGHTNESS * (draws[:, 2:3] - 0.5) + TINT * (draws[:, 2:5] - 0.5)
        looks = np.concatenate([half, shade, draws[:, 5:6]], 1)
        self.points = np.concatenate([self.points, points.astype(np.float32)])
        self.looks = np.concatenate([self.looks, looks.astype(np.float32)])

    def paint(self, canvas: np.ndarray, pixels: np.ndarray) -> None:
        """Draw the strokes, each with a darker mark of the bristles along one side."""
        x, y = self.points.round().astype(int).T
        colours = cv2.GaussianBlur(pixels, (0, 0), self.width / 3)[y, x] + self.looks[:, 2:5]
        halves = self.looks[:, :2]
        sides = halves[:, ::-1] * (-1, 1) * self.width / self.length / 2
        for n in self.looks[:, 5].argsort(kind="stable"):
            colour = colours[n].clip(0, 255).tolist()
            _line(canvas, self.points[n], halves[n], colour, self.width)
            _line(canvas, self.points[n] + sides[n], halves[n], [0.8 * value for value in colour], 1)


def _direction(pixels: np.ndarray) -> np.ndarray:
    """Return the angle of the edges at each pixel by the structure tensor: upright in flat areas."""
    grey = cv2.cvtColor(cv2.GaussianBlur(pixels, (0, 0), 2), cv2.COLOR_RGB2GRAY).astype(np.float32)
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    xx, yy, xy = (cv2.GaussianBlur(values, (0, 0), 4) for values in (dx * dx, dy * dy, dx * dy))
    return 0.5 * np.arctan2(2 * xy, xx - yy + 60) + np.pi / 2


def _line(canvas: np.ndarray, middle: np.ndarray, half: np.ndarray, colour: list[float], width: int) -> None:
    first, last = ((16 * (middle + side * half)).round().astype(int).tolist() for side in (-1, 1))  # sixteenths
    cv2.line(canvas, first, last, colour, width, cv2.LINE_AA, shift=4)
