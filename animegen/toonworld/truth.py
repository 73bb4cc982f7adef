"""Ground truth: optical flow and visibility between frames."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

HIDDEN, BORDER, VISIBLE = 0, 1, 2
FINE = 9


def affine_maps(labels: np.ndarray, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Apply the (2, 3) float32 matrix of its label to each raster position (column, row).

    ``labels`` (H, W) uint8; ``tables`` (P, 2, 3). Returns two (H, W) float32 maps, x and y.
    """
    height, width = labels.shape
    full = np.zeros((2, 3, 1, 256), np.float32)
    full[:, :, 0, : len(tables)] = tables.transpose(1, 2, 0)
    columns = np.broadcast_to(np.arange(width, dtype=np.float32), (height, width))
    rows = np.arange(height, dtype=np.float32)[:, None]
    maps: list[Any] = []
    for axis in (0, 1):
        # In-place operations per map were the fastest variant.
        value: Any = cv2.LUT(labels, full[axis, 0])
        value *= columns
        part: Any = cv2.LUT(labels, full[axis, 1])
        part *= rows
        value += part
        value += cv2.LUT(labels, full[axis, 2])
        maps.append(value)
    return maps[0], maps[1]


def flow(labels: np.ndarray, poses: np.ndarray, poses2: np.ndarray) -> np.ndarray:
    """Return the flow (2, H, W) float32 in pixels from the labels (H, W) and the poses (P, 3, 3) of both frames.

    A pixel centre x (index + 1/2) with label k moves to poses2[k] poses[k]^-1 x.
    """
    motion = poses2 @ np.linalg.inv(poses) - np.eye(3)
    tables = motion[:, :2].copy()
    tables[:, :, 2] += motion[:, :2, :2].sum(2) / 2
    return np.stack(affine_maps(labels, tables.astype(np.float32)))


def visibility(labels: np.ndarray, motion: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Return VISIBLE, BORDER or HIDDEN in frame t2 for each pixel of frame t, (H, W) uint8.

    ``labels`` (H, W) and ``motion`` (2, H, W) are those of frame t, ``fine`` (9H, 9W) the labels of frame t2. A pixel
    is visible if all of the 3x3 samples around its target belong to the same part, hidden if none does or the target
    is outside the frame, else at a border.
    """
    height, width = labels.shape
    x = np.floor((motion[0] + (np.arange(width, dtype=np.float32) + 0.5)) * FINE).astype(np.int32)
    y = np.floor((motion[1] + (np.arange(height, dtype=np.float32)[:, None] + 0.5)) * FINE).astype(np.int32)
    fine_height, fine_width = fine.shape
    outside = (x < 0) | (y < 0) | (x >= fine_width) | (y >= fine_height)
    x, y = np.clip(x, 1, fine_width - 2), np.clip(y, 1, fine_height - 2)
    start = y * fine_width + x
    flat = fine.reshape(-1)
    count = np.zeros(labels.shape, np.uint8)
    for dy in (-fine_width, 0, fine_width):
        for dx in (-1, 0, 1):
            count += flat.take(start + (dy + dx)) == labels
    state = np.where(count == 9, VISIBLE, np.where(count == 0, HIDDEN, BORDER)).astype(np.uint8)
    state[outside] = HIDDEN
    return state
