"""True motion of ToonWorld clips, as a target of training."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

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
