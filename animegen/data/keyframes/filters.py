"""Deterministic image filters of increasing difficulty, which give any video a ground truth for every frame.

Drawings by hand exist for a few frames only, so the frames between cannot be scored. The filters that a method learns
from a few key frames show what it can do.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.data.keyframes.project import KeyframeProject, spread
from animegen.data.keyframes.strokes import strokes
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError, did_you_mean
from animegen.media.video.opening import open_video

Image = np.ndarray
"""uint8 (H, W, 3), RGB."""


def grade(frame: Image) -> Image:
    """Change each colour independently of its position: more contrast and saturation, warm lights, cool shadows."""
    x = frame.astype(np.float32) / 255
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    curve = (0.5 - 0.5 * np.cos(np.pi * luma))[..., None]
    toned = curve + 1.5 * (x - luma[..., None]) + 0.08 * (2 * luma[..., None] - 1) * np.array([1, 0.2, -1], np.float32)
    return (toned.clip(0, 1) * 255).round().astype(np.uint8)


def poster(frame: Image) -> Image:
    """Flatten areas (edge-preserving filter of Gastal and Oliveira 2011), quantise lightness to five levels, grade."""
    smooth = cv2.edgePreservingFilter(frame, flags=cv2.RECURS_FILTER, sigma_s=20, sigma_r=0.4)
    hls = cv2.cvtColor(smooth, cv2.COLOR_RGB2HLS)
    steps = 5
    hls[..., 1] = ((np.floor(hls[..., 1] / 256 * steps) + 0.5) * 256 / steps).astype(np.uint8)
    return grade(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB))


def ink(frame: Image) -> Image:
    """Add dark lines to the poster by a thresholded difference of Gaussians (Winnemöller 2011, XDoG)."""
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    darker = cv2.GaussianBlur(gray, (0, 0), 0.8) - cv2.GaussianBlur(gray, (0, 0), 2.4)
    drawn = poster(frame)
    drawn[darker < -6] = (24, 18, 30)
    return drawn


def flat(frame: Image) -> Image:
    """Draw flat colours and ink lines without thresholds: noise of the photo changes the drawing only a little.

    Repeated bilateral filtering, six soft levels of brightness, more saturation, and lines where the difference of
    Gaussians is negative (soft XDoG).
    """
    smooth = frame
    for _ in range(2):
        smooth = cv2.bilateralFilter(smooth, 9, 35, 5)
    colours = smooth.astype(np.float32)
    brightness = colours.mean(-1, keepdims=True)
    level, position = np.divmod(brightness * 6 / 255, 1)
    colours *= (level + _sigmoid(12 * (position - 0.5))) * 255 / 6 / np.maximum(brightness, 1)
    colours += 0.4 * (colours - colours.mean(-1, keepdims=True))
    gray = cv2.cvtColor(cv2.GaussianBlur(frame, (0, 0), 1), cv2.COLOR_RGB2GRAY).astype(np.float32)
    line = _sigmoid(0.8 * (cv2.GaussianBlur(gray, (0, 0), 2.5) - gray - 6))[..., None]
    drawn = colours + line * (np.array([20, 16, 26], np.float32) - colours)
    return drawn.clip(0, 255).astype(np.uint8)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def place(frame: Image) -> Image:
    """Rotate the hue of the inked poster by a full turn from left to right, which makes it depend on the position."""
    hls = cv2.cvtColor(ink(frame), cv2.COLOR_RGB2HLS)
    turn = np.arange(frame.shape[1]) * 180 // frame.shape[1]  # OpenCV's hues are 0 to 179
    hls[..., 0] = (hls[..., 0].astype(np.int64) + turn) % 180
    return cv2.cvtColor(hls, cv2.COLOR_HLS2RGB)


FILTERS: dict[str, Callable[[Image], Image]] = {
    "grade": grade,
    "poster": poster,
    "ink": ink,
    "flat": flat,
    "place": place,
}
"""From easy to hard: the first is a colour table, the last depends on the position in the image."""

CLIP_FILTERS: dict[str, Callable[[Tensor], Tensor]] = {"strokes": strokes}
"""Filters of whole clips, uint8 (T, 3, H, W): the look of a frame depends on its place in the motion of the clip."""


def filtered_project(
    video: str | Path, filter: str = "ink", keys: int = 2, frames: int = 48, start: int = 0, size: int = 128
) -> KeyframeProject:
    """Return a project of a piece of a video with filtered frames as drawings and ground truth.

    Args:
        video: a video, or a folder of frames.
        filter: one of :data:`FILTERS` or :data:`CLIP_FILTERS`.
        keys: number of evenly spaced key frames.
        frames: length of the piece.
        start: number of its first frame.
        size: shorter side of the frames in pixels; the sides are cropped to multiples of 4.

    Raises:
        AnimegenError: for an unknown filter, too few frames, or a video that cannot be read.
    """
    known = (*FILTERS, *CLIP_FILTERS)
    if filter not in known:
        raise AnimegenError(f"filter={filter} is unknown: use {', '.join(known)}.{did_you_mean(filter, known)}")
    if not 1 <= keys < frames or start < 0 or size < 16:
        raise AnimegenError(
            f"keys={keys}, frames={frames}, start={start} and size={size} are not valid: use fewer keys than frames,"
            " start >= 0 and size >= 16."
        )
    photo = _piece(Path(video), start, frames, size)
    truth = CLIP_FILTERS[filter](photo) if filter in CLIP_FILTERS else _each(FILTERS[filter], photo)
    return KeyframeProject(photo, {n: truth[n] for n in spread(keys, frames)}, truth=truth)


def _each(draw: Callable[[Image], Image], clip: Tensor) -> Tensor:
    """Apply a filter to each frame, uint8 (T, 3, H, W)."""
    drawn = [draw(np.ascontiguousarray(frame.permute(1, 2, 0).numpy())) for frame in clip]
    return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in drawn])


def _piece(video: Path, start: int, frames: int, size: int) -> Tensor:
    """Return a piece of a video, uint8 (frames, 3, H, W)."""
    found = [scale_short_side(pixels, size) for pixels, _ in islice(open_video(video), start, start + frames)]
    if len(found) < frames:
        raise AnimegenError(
            f"'{video}' has {len(found)} frames from frame {start}, not {frames}: set data.frames or data.start."
        )
    photo = torch.stack(found)
    height, width = (side - side % 4 for side in photo.shape[-2:])
    return photo[..., :height, :width].contiguous()
