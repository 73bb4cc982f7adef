"""Measurements of every frame of a video in one pass; the rules use them instead of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.media.video.cadence import sameness
from animegen.metrics.motion import flow_extent, small_gray

#: A border row or column that is darker than this in every frame (mean level of 255) is a bar.
BAR = 20


@dataclass(frozen=True)
class Facts:
    """Measurements of a frame.

    Attributes:
        number: number of the frame in the video.
        time: when it appears, in seconds.
        shot: number of its shot.
        luma: mean brightness, 0 to 255.
        contrast: standard deviation of the brightness.
        same: similarity to the previous drawing (see :func:`~animegen.media.video.cadence.sameness`). Above the rule's
            limit the frame shows that drawing, and the rest is not measured. ``None`` for the first frame of a shot.
        drawing: whether it is the first frame of a drawing.
        before: number of the frame that began the drawing before; ``None`` for the first one of a shot.
        jump: change of the mean brightness since the drawing before, in levels.
        motion: motion since the drawing before, 98th percentile, as a share of the image's width.
        unexplained: difference to the previous drawing that remains after motion compensation, in levels.
        look: 64-bit difference hash, nearly equal for similar images.
    """

    number: int
    time: Fraction
    shot: int
    luma: float
    contrast: float
    same: float | None = None
    drawing: bool = False
    before: int | None = None
    jump: float = 0.0
    motion: float = 0.0
    unexplained: float = 0.0
    look: int = 0


class Bars:
    """Detect the black bars around the image: border rows and columns that are dark in every frame."""

    def __init__(self) -> None:
        self.rows: np.ndarray | None = None
        self.columns: np.ndarray | None = None

    def add(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3)."""
        bright = frame.max(2)
        rows, columns = bright.mean(1), bright.mean(0)
        if self.rows is None or self.columns is None:
            self.rows, self.columns = rows, columns
        else:
            np.maximum(self.rows, rows, out=self.rows)
            np.maximum(self.columns, columns, out=self.columns)

    def box(self) -> tuple[int, int, int, int]:
        """Return the image without bars as (top, bottom, left, right); the whole frame if all of it is dark."""
        if self.rows is None or self.columns is None:
            return 0, 0, 0, 0
        found = [np.flatnonzero(side > BAR) for side in (self.rows, self.columns)]
        if not all(len(lit) for lit in found):
            return 0, len(self.rows), 0, len(self.columns)
        (top, bottom), (left, right) = ((int(lit[0]), int(lit[-1]) + 1) for lit in found)
        return top, bottom, left, right


def measure(
    frames: Iterable[tuple[Tensor, Fraction]],
    shots: Sequence[tuple[int, int]],
    every: int = 1,
    held: float = 0.0,
    bars: Bars | None = None,
) -> Iterator[Facts]:
    """Yield the measurements of the first frame of each shot and every ``every``-th after it.

    Args:
        frames: uint8 ``(3,H,W)`` with their times, all frames of the video.
        shots: as :func:`~animegen.media.video.shots.detect_shots` returns them.
        every: distance of the frames that are looked at.
        held: a frame shows the drawing before if its sameness is above this.
        bars: receives every frame.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    shot, drawing, small, known = -1, -1, np.empty(0), torch.empty(0)
    luma_before = 0.0
    for number, (pixels, time) in enumerate(frames):
        begins = shot + 1 < len(shots) and number == shots[shot + 1][0]
        shot += begins
        if (number - shots[shot][0]) % every:
            continue
        image = pixels.permute(1, 2, 0).numpy()
        if bars is not None:
            bars.add(image)
        grey = small_gray(image)
        luma, contrast = float(grey.mean()), float(grey.std())
        same = None if begins else sameness(known, pixels)
        if same is not None and same > held:
            yield Facts(number, time, shot, luma, contrast, same)
            continue
        if begins:
            yield Facts(number, time, shot, luma, contrast, drawing=True, look=_look(grey))
        else:
            motion, unexplained = _moved(flow, small, grey)
            jump = luma - luma_before
            yield Facts(
                *(number, time, shot, luma, contrast, same, True, drawing, jump, motion, unexplained, _look(grey))
            )
        drawing, small, known, luma_before = number, grey, pixels, luma


def _moved(flow: cv2.DISOpticalFlow, before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Return the motion as a share of the width, and the difference that it leaves, in levels.

    The difference is the median over blocks of the image: occlusion, which motion cannot explain, affects a moderate
    share of the blocks, but a dissolve, a missed cut or a flash affects nearly all of them.
    """
    height, width = now.shape
    if min(height, width) < 16:
        return 0.0, 0.0
    field = np.asarray(flow.calc(now, before, None))  # type: ignore[call-overload]
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    remap: Any = cv2.remap  # OpenCV's types do not know that the second map may be missing
    carried = remap(before, grid + field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    left = cv2.absdiff(now, carried)
    blocks = cv2.resize(left.astype(np.float32), (16, 9), interpolation=cv2.INTER_AREA)
    return flow_extent(field), float(np.median(blocks))


def _look(grey: np.ndarray) -> int:
    """Return the difference hash: whether each of 8 x 8 places is brighter than its right neighbour."""
    tiny = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int("".join("1" if bit else "0" for bit in (tiny[:, :-1] > tiny[:, 1:]).ravel()), 2)


def unlike(first: int, second: int) -> int:
    """Return the number of differing bits, of 64, of two difference hashes."""
    return (first ^ second).bit_count()
