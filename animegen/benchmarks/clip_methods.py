"""Methods on whole clips: a streamed model, an image baseline, and trivial temporal smoothing."""

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
"""Share of the past in the trivial smoothing. (On ToonWorld it reduces a per-frame network's warping error from
13.9 levels to 4.6, below the 10.1 of the true drawings: lost lines count as consistency.)"""


class Streamed:
    """A model as a method on clips (B, T, 3, H, W): frame by frame, with an empty state at frame 0.

    Args:
        model: the model.
        memory: pass the state from frame to frame; if false, every frame starts with an empty state.
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
        """Return whether the model has a state."""
        return not torch.equal(self(clip), Streamed(self.model, memory=False)(clip))


class FrameByFrame:
    """An image baseline applied to clips."""

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline

    def __call__(self, clip: Tensor) -> Tensor:
        """Map the frames of clips (B, T, 3, H, W)."""
        return self.baseline(clip.flatten(0, 1)).view_as(clip)


class OnBatch:
    """A baseline that reads other entries of a batch than the photos."""

    def __init__(self, run: Callable[[dict[str, Any]], Tensor]) -> None:
        self.run = run

    def __call__(self, batch: dict[str, Any]) -> Tensor:
        """Return the clip for a batch."""
        return self.run(batch)


class Blended:
    """Trivial temporal smoothing: blend every output with the previous one, warped along the motion of the photos.

    The baseline for models with memory: it reduces the flicker of any stylizer, and blurs its lines.

    Args:
        method: a method on clips.
        estimator: estimates the motion; DIS by default.
        share: weight of the previous output, in [0, 1).
    """

    def __init__(self, method: ClipMethod, estimator: FlowEstimator | None = None, share: float = BLEND) -> None:
        self.method, self.estimator, self.share = method, estimator or DISFlow(), share

    def __call__(self, clip: Tensor) -> Tensor:
        """Stylize clips (B, T, 3, H, W) and smooth them."""
        outputs = self.method(clip)
        return torch.stack(
            [
                blend_past(output, EstimatedMotion(photo, self.estimator), self.share)
                for output, photo in zip(outputs, clip, strict=True)
            ]
        )


def blend_past(clip: Tensor, motion: ClipMotion, share: float = BLEND) -> Tensor:
    """Return ``y_t = (1 - share) x_t + share W(y_{t-1})`` where a pixel is visible in the previous frame, else x_t.

    Args:
        clip: x, (T, 3, H, W) in [-1, 1].
        motion: motion along which W warps a frame to the next.
        share: weight of the previous output.
    """
    frames = [clip[:1]]
    for t in range(1, len(clip)):
        there, valid = motion.between(t, t - 1)
        past = backward_warp(frames[-1], there.to(clip.device, clip.dtype))
        weight = share * valid.to(clip.device, clip.dtype)
        frames.append(clip[t : t + 1] * (1 - weight) + past * weight)
    return torch.cat(frames)
