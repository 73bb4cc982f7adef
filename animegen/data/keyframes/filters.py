"""Deterministic looks of rising difficulty, so that any video has a drawn truth for every frame.

A person's drawings of a video are known at a few frames only, and what lies between can only be judged by eye. A filter
of the frames themselves can be asked about each. For which filters a few key frames suffice tells what the method does.
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
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError, did_you_mean

Picture = np.ndarray
"""uint8 (H, W, 3), RGB."""


def grade(frame: Picture) -> Picture:
    """Change colours only, each by itself: more contrast and saturation, warm lights and cool shadows."""
    x = frame.astype(np.float32) / 255
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    curve = (0.5 - 0.5 * np.cos(np.pi * luma))[..., None]
    toned = curve + 1.5 * (x - luma[..., None]) + 0.08 * (2 * luma[..., None] - 1) * np.array([1, 0.2, -1], np.float32)
    return (toned.clip(0, 1) * 255).round().astype(np.uint8)


def poster(frame: Picture) -> Picture:
    """Flatten areas (edge-preserving filter of Gastal and Oliveira 2011) and give them five shades, then grade."""
    smooth = cv2.edgePreservingFilter(frame, flags=cv2.RECURS_FILTER, sigma_s=20, sigma_r=0.4)
    hls = cv2.cvtColor(smooth, cv2.COLOR_RGB2HLS)
    steps = 5
    hls[..., 1] = ((np.floor(hls[..., 1] / 256 * steps) + 0.5) * 256 / steps).astype(np.uint8)
    return grade(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB))


def ink(frame: Picture) -> Picture:
    """Draw dark lines on the poster where the frame is darker than its surroundings.

    The lines are a thresholded difference of Gaussians (Winnemöller 2011, XDoG, with a hard threshold).
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    darker = cv2.GaussianBlur(gray, (0, 0), 0.8) - cv2.GaussianBlur(gray, (0, 0), 2.4)
    drawn = poster(frame)
    drawn[darker < -6] = (24, 18, 30)
    return drawn


def place(frame: Picture) -> Picture:
    """Let the hue of the inked poster turn once round from left to right: what to draw depends on where."""
    hls = cv2.cvtColor(ink(frame), cv2.COLOR_RGB2HLS)
    turn = np.arange(frame.shape[1]) * 180 // frame.shape[1]  # OpenCV's hues are 0 to 179
    hls[..., 0] = (hls[..., 0].astype(np.int64) + turn) % 180
    return cv2.cvtColor(hls, cv2.COLOR_HLS2RGB)


FILTERS: dict[str, Callable[[Picture], Picture]] = {"grade": grade, "poster": poster, "ink": ink, "place": place}
"""From easy to hard: a colour table is enough for the first; the last needs to know where in the image it is."""


def filtered_project(
    film: str | Path, filter: str = "ink", keys: int = 2, frames: int = 48, start: int = 0, size: int = 128
) -> KeyframeProject:
    """Return a piece of a video whose drawing, made by a filter, is given at a few frames and known at all.

    Args:
        film: a video, or a folder of its frames.
        filter: one of :data:`FILTERS`.
        keys: number of key frames, each in the middle of its share of the piece.
        frames: length of the piece.
        start: its first frame.
        size: shorter side of the frames in pixels; the longer one is cut to a multiple of 4.

    Raises:
        AnimegenError: for an unknown filter, too few frames, or a video that cannot be read.
    """
    if filter not in FILTERS:
        raise AnimegenError(f"filter={filter} is unknown: use {', '.join(FILTERS)}.{did_you_mean(filter, FILTERS)}")
    if not 1 <= keys < frames or start < 0 or size < 16:
        raise AnimegenError(
            f"A piece of {frames} frames from frame {start} at {size} pixels cannot have {keys} key frames: use fewer"
            " keys than frames, start of at least 0 and size of at least 16."
        )
    photo = _piece(Path(film), start, frames, size)
    draw = FILTERS[filter]
    truth = torch.stack(
        [
            torch.from_numpy(draw(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()))).permute(2, 0, 1)
            for frame in photo
        ]
    )
    return KeyframeProject(photo, {n: truth[n] for n in spread(keys, frames)}, truth=truth)


def _piece(film: Path, start: int, frames: int, size: int) -> Tensor:
    """Return a piece of a video, uint8 (frames, 3, H, W)."""
    from animegen.media.video.opening import open_video  # on demand: generated clips need no videos

    found = [scale_short_side(pixels, size) for pixels, _ in islice(open_video(film), start, start + frames)]
    if len(found) < frames:
        raise AnimegenError(
            f"'{film}' has no {frames} frames from frame {start}, only {len(found)}: set data.frames or data.start."
        )
    photo = torch.stack(found)
    height, width = (side - side % 4 for side in photo.shape[-2:])
    return photo[..., :height, :width].contiguous()
