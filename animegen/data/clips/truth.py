"""True motion of ToonWorld clips, as a target of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from animegen.toonworld.scene import Scene
from animegen.toonworld.truth import flow


@runtime_checkable
class MovingSource(Protocol):
    """A source of clips that knows their motion."""

    def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
        """Return the flow of clip ``index`` from frame ``number`` to frame ``other``, and where it can be seen.

        These are (2, H, W) float32 in pixels on the grid of ``number``, and (H, W) bool, whether the same place is in
        sight in ``other``.
        """
        ...


def knows_motion(source: Any) -> bool:
    """Return whether the motion of all clips of a source, or of all sources that it mixes, is known."""
    parts = getattr(source, "sources", None)
    if isinstance(parts, Mapping):
        return all(knows_motion(part) for part in parts.values())
    return isinstance(source, MovingSource)


class Box(NamedTuple):
    """The part of a frame that a view cuts out, in pixels of the frame, which may be fractions.

    Attributes:
        top: its upper edge.
        left: its left edge.
        height: its height.
        width: its width.
    """

    top: float
    left: float
    height: float
    width: float


def cut_flow(flow: Tensor, box: Box, height: int, width: int) -> Tensor:
    """Return the flow (C,height,width) in the part of a frame that was cut out and scaled to this size.

    Each pixel takes the nearest vector. A mean of vectors on both sides of an outline would be the motion of neither.

    Args:
        flow: (C,H,W) in pixels of the whole frame, x and y in turn.
        box: the part.
        height: of the part after scaling.
        width: the same.
    """
    gain = flow.new_tensor([width / box.width, height / box.height]).repeat(len(flow) // 2).view(-1, 1, 1)
    return cut_nearest(flow, box, height, width) * gain


def cut_nearest(values: Tensor, box: Box, height: int, width: int) -> Tensor:
    """Return the nearest of values (C,H,W) in a part of a frame that was cut out and scaled, (C,height,width)."""
    rows = _nearest(box.top, box.height, height, values.shape[-2])
    columns = _nearest(box.left, box.width, width, values.shape[-1])
    return values[:, rows][:, :, columns]


def _nearest(start: float, length: float, count: int, limit: int) -> Tensor:
    """Return the pixels of a line of ``limit`` at the centres of ``count`` equal parts of a section."""
    centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * (length / count)
    return centres.floor().long().clamp(0, limit - 1)


class SceneMotion:
    """The parts and poses of a scene in all its frames, from which the motion between any two frames follows.

    Args:
        scene: of these frames.
        frames: number of frames.
    """

    def __init__(self, scene: Scene, frames: int) -> None:
        self.labels = np.stack([scene.labels(t) for t in range(frames)])
        self.poses = np.stack([scene.poses(t) for t in range(frames)])

    def between(self, number: int, other: int) -> tuple[Tensor, Tensor]:
        """Return flow and sight, see :meth:`MovingSource.motion`.

        A place is in sight if the pixel to which it moves shows the same part.
        """
        labels = self.labels[number]
        found = flow(labels, self.poses[number], self.poses[other])
        height, width = labels.shape
        x = np.floor(found[0] + (np.arange(width, dtype=np.float32) + 0.5)).astype(np.int64)
        y = np.floor(found[1] + (np.arange(height, dtype=np.float32) + 0.5)[:, None]).astype(np.int64)
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        part = self.labels[other][y.clip(0, height - 1), x.clip(0, width - 1)]
        return torch.from_numpy(found), torch.from_numpy(inside & (part == labels))
