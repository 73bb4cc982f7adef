"""Motion of predicted frames: where the renderer starts, and the targets of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.clips import ClipsView
from animegen.nn.inbetween.base import time_map
from animegen.nn.warp import backward_warp, sight_weights, uniform_motion

#: Weight of a frame that does not show a place, where the other one shows it with a weight of 1.
_UNSEEN = 0.01


def make_start(motion: Tensor, size: Sequence[int]) -> Tensor:
    """Return where flow and mask of the renderer start (B,5,H,W): motion (B,5,h,w) enlarged; flow stays in pixels."""
    return F.interpolate(motion.float(), tuple(size), mode="bilinear", align_corners=False)


def warped_by(motion: Tensor, first: Tensor, last: Tensor, t: Tensor) -> Tensor:
    """Return both frames (B,3,H,W) warped to the times t (B,) by a motion (B,5,h,w), and merged by its mask."""
    start, time = make_start(motion, first.shape[-2:]), time_map(t.float(), first)
    early = backward_warp(first, time * start[:, :2])
    late = backward_warp(last, (1 - time) * start[:, 2:4])
    mask = torch.sigmoid(start[:, 4:] + torch.logit(time.neg() + 1))
    return mask * early + (1 - mask) * late


def known_motion(flow: Tensor, seen: Tensor, t: float) -> Tensor:
    """Return a known flow to both given frames as motion (B,5,H,W), as the transformer predicts it.

    Args:
        flow: (B,4,H,W) in pixels, from the frame at time t to the first and to the last frame.
        seen: (B,2,H,W) bool, whether the first and the last frame show the place.
        t: time of the frame, in (0,1).
    """
    weight = torch.where(seen, 1.0, _UNSEEN)
    return torch.cat([flow[:, :2] / t, flow[:, 2:] / (1 - t), torch.log(weight[:, :1] / weight[:, 1:])], 1)


def motion_entries(
    predictions: Mapping[str, Any], batch: Mapping[str, Tensor], view: ClipsView | None
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Return the context entries that train the motion, functions that run if a loss term reads them.

    ``flow`` and ``true_flow`` (E N,4,H,W) are all E estimates of the flow from N frames between to both given frames,
    and the exact one; both are scaled by a fifth where the given frame does not show the place. ``warped`` and
    ``between`` (N,3,H,W) are the given frames warped by the last estimate and merged, and the true frames.
    ``uniform_flow`` (E N,4,H,W) takes the place of ``true_flow``: the same motion from the first to the last frame, but
    divided evenly in time. Two frames show where a place moves, and hardly when: cameras accelerate, and limbs swing.
    So the exact flow at one time is a noisy target.

    Args:
        predictions: of the transformer, with ``motion`` and ``motion_frames``.
        batch: of pieces of clips with the images of all frames.
        view: of the clips; its source must know the motion for ``flow``.
    """
    frames = predictions["motion_frames"]
    clips, count = len(batch["first"]), batch["truth"].shape[1] + 1
    t = (frames / count).repeat(clips)
    first, last = (batch[name].repeat_interleave(len(frames), 0) for name in ("first", "last"))

    def flows() -> dict[str, Tensor]:
        assert view is not None
        true, seen = view.motion(batch, frames.tolist())
        weight = sight_weights(seen).to(first.device)
        time = time_map(t.float(), first)
        share = weight * torch.cat([time, time, 1 - time, 1 - time], 1)
        found = [make_start(part.flatten(0, 1), first.shape[-2:])[:, :4] * share for part in predictions["motion"]]
        true = true.to(first.device)
        targets = {"true_flow": true, "uniform_flow": uniform_motion(true, time)}
        return {"flow": torch.cat(found)} | {
            name: (weight * target).repeat(len(found), 1, 1, 1) for name, target in targets.items()
        }

    def pictures() -> dict[str, Tensor]:
        found = warped_by(predictions["motion"][-1].flatten(0, 1), first, last, t)
        return {"warped": found, "between": batch["truth"][:, frames - 1].flatten(0, 1)}

    return {"flow": flows, "true_flow": flows, "uniform_flow": flows, "warped": pictures, "between": pictures}
