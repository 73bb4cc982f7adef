"""Stylisers of whole clips: a model that is streamed, a baseline of pictures, and trivial smoothing in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.baselines import Baseline
from animegen.media.video.flow import ClipMotion, DISFlow, EstimatedMotion, FlowEstimator
from animegen.metrics.video import ClipMethod
from animegen.nn.warp import backward_warp
from animegen.tasks.protocols import Stylizer

BLEND = 0.7
"""Share of the past in the trivial smoothing. (On the generated world it takes a per-frame network's warping error from
13.9 levels to 4.6, below the 10.1 of the true drawings: all that lines lose by it counts as steadiness.)"""


class Streamed:
    """A model as a method for clips (B, T, 3, H, W): frame after frame, from a fresh state at frame 0.

    Args:
        model: the model.
        memory: hand the state on from frame to frame; without, every frame is a fresh start.
    """

    def __init__(self, model: Stylizer, memory: bool = True) -> None:
        self.model, self.memory = model, memory

    def __call__(self, clip: Tensor) -> Tensor:
        """Stylise the clips."""
        state, frames = None, []
        for frame in clip.unbind(1):
            output, state = self.model.stylize(frame, state if self.memory else None)
            frames.append(output)
        return torch.stack(frames, 1)

    def remembers(self, clip: Tensor) -> bool:
        """Tell whether memory makes any difference to a clip."""
        return not torch.equal(self(clip), Streamed(self.model, memory=False)(clip))


class FrameByFrame:
    """A baseline for pictures, applied to clips."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def __call__(self, clip: Tensor) -> Tensor:
        """Map the frames of clips (B, T, 3, H, W)."""
        return self.baseline(clip.flatten(0, 1)).view_as(clip)


class OnBatch:
    """A baseline that reads more of a batch than the photos."""

    def __init__(self, run: Callable[[dict[str, Any]], Tensor]) -> None:
        self.run = run

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        """Return the clip that the baseline makes of a batch."""
        return self.run(batch)


class Blended:
    """Trivial smoothing: every output is blended with the output before, carried along the motion of the photos.

    What a memory has to beat: it makes any flickering styliser steady, and smears its lines.

    Args:
        method: a styliser of clips.
        estimator: finds the motion; DIS unless given.
        share: of the past, in [0, 1).
    """

    def __init__(self, method: ClipMethod, estimator: FlowEstimator | None = None, share: float = BLEND) -> None:
        self.method, self.estimator, self.share = method, estimator or DISFlow(), share

    def __call__(self, clip: Tensor) -> Tensor:
        """Stylise clips (B, T, 3, H, W), and smooth them."""
        outputs = self.method(clip)
        return torch.stack(
            [
                blend_past(output, EstimatedMotion(photo, self.estimator), self.share)
                for output, photo in zip(outputs, clip, strict=True)
            ]
        )


def blend_past(clip: Tensor, motion: ClipMotion, share: float = BLEND) -> Tensor:
    """Return ``y_t = (1 - share) x_t + share W(y_{t-1})`` where the frame before shows a pixel, and x_t elsewhere.

    Args:
        clip: x, (T, 3, H, W) in [-1, 1].
        motion: along which W carries a frame to the next.
        share: of the past.
    """
    frames = [clip[:1]]
    for t in range(1, len(clip)):
        there, valid = motion.between(t, t - 1)
        past = backward_warp(frames[-1], there.to(clip.device, clip.dtype))
        weight = share * valid.to(clip.device, clip.dtype)
        frames.append(clip[t : t + 1] * (1 - weight) + past * weight)
    return torch.cat(frames)
