"""Motion of predicted frames: where the renderer starts, and the targets of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.clips import ClipsView
from animegen.nn.inbetween.base import time_map
from animegen.nn.warp import backward_warp, sight_weights


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


def motion_entries(
    predictions: Mapping[str, Any], batch: Mapping[str, Tensor], view: ClipsView | None
) -> dict[str, Callable[[], dict[str, Tensor]]]:
    """Return the context entries that train the motion, functions that run if a loss term reads them.

    ``flow`` and ``true_flow`` (E N,4,H,W) are all E estimates of the flow from N frames between to both given frames,
    and the exact one; both are scaled by a fifth where the given frame does not show the place. ``warped`` and
    ``between`` (N,3,H,W) are the given frames warped by the last estimate and merged, and the true frames.

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
        target = weight * true.to(first.device)
        return {"flow": torch.cat(found), "true_flow": target.repeat(len(found), 1, 1, 1)}

    def pictures() -> dict[str, Tensor]:
        found = warped_by(predictions["motion"][-1].flatten(0, 1), first, last, t)
        return {"warped": found, "between": batch["truth"][:, frames - 1].flatten(0, 1)}

    return {"flow": flows, "true_flow": flows, "warped": pictures, "between": pictures}
