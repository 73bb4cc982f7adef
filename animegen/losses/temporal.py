"""Temporal consistency losses.

Flows follow :mod:`animegen.nn.warp`: ``flow[:, t]`` is on the grid of frame t + 1 and points into an earlier frame.
``valid`` is 1 where that frame shows the same content. Pixels where it is 0 or the flow leaves the image are ignored.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.losses.pixel import difference
from animegen.nn.colour import luma
from animegen.nn.warp import backward_warp, inside, resize_flow


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return ``sum(mask * values) / max(sum(mask), 1)`` with the mask (N,1,H,W) expanded to the values (N,C,H,W)."""
    mask = mask.to(values.dtype).expand_as(values)
    return (mask * values).sum() / mask.sum().clamp_min(1)


def _pairs(clip: Tensor, long: bool = False) -> tuple[Tensor, Tensor]:
    """Return pairs of current and earlier frames, (N,C,H,W) each: neighbours, or the third and later with the first."""
    if not long:
        return clip[:, 1:].flatten(0, 1), clip[:, :-1].flatten(0, 1)
    later = clip[:, 2:]
    return later.flatten(0, 1), clip[:, :1].expand_as(later).flatten(0, 1)


class TemporalConsistency(nn.Module):
    """Warping error: the difference between each frame and an earlier frame warped to it.

    ``mean over valid pixels of |(O_t - W(O_s)) - (x_t - W(x_s))_Y|^power``. The second difference, the change of the
    *input's* luma, belongs to the relaxed form (ReCoNet: Gao et al. 2018); it is 0 in the strict form.

    Args:
        power: 1 or 2.
        relaxed: allow changes of the input's luma.
        long: compare the third and later frames with the first of the clip (Lai et al. 2018) instead of neighbours;
            ``flow`` and ``valid`` must then refer to the first frame.
        detach: no gradient to the earlier frame, which the loss would otherwise blur.
    """

    def __init__(self, power: int = 1, relaxed: bool = True, long: bool = False, detach: bool = True) -> None:
        super().__init__()
        if power not in (1, 2):
            raise AnimegenError(f"TemporalConsistency needs power=1 or power=2, not {power}.")
        self.power, self.relaxed, self.long, self.detach = power, relaxed, long, detach

    def forward(self, clip: Tensor, photo: Tensor, flow: Tensor, valid: Tensor) -> Tensor:
        """Compare the frames of clips.

        Args:
            clip: the output, ``(B,T,3,H,W)``.
            photo: the input, of the same shape.
            flow: ``(B,T-1,2,H,W)``, from frame t + 1 into frame t (or into frame 0).
            valid: ``(B,T-1,1,H,W)``.
        """
        difference(clip, photo, self)
        if clip.shape[1] < (3 if self.long else 2):
            return clip.new_zeros((), dtype=torch.float32)
        first = 1 if self.long else 0
        flows, mask = flow[:, first:].flatten(0, 1).float(), valid[:, first:].flatten(0, 1)
        now, then = _pairs(clip.float(), self.long)
        change = now - backward_warp(then.detach() if self.detach else then, flows)
        if self.relaxed:
            with torch.no_grad():
                here, there = _pairs(photo.float(), self.long)
                change = change - luma(here - backward_warp(there, flows)).reshape(len(flows), 1, *flows.shape[-2:])
        change = change.abs() if self.power == 1 else change.square()
        return masked_mean(change, (mask > 0) & inside(flows))


class FeatureConsistency(nn.Module):
    """Mean squared change of feature maps along the flow (ReCoNet's feature-map loss).

    The maps are normalised per channel and frame, so that small values give no advantage. Flow and mask are resized to
    them.
    """

    def forward(self, maps: Tensor, flow: Tensor, valid: Tensor) -> Tensor:
        """Compare neighbours in maps (B,T,C,h,w) along flows (B,T-1,2,H,W) where valid (B,T-1,1,H,W)."""
        if maps.shape[1] < 2:
            return maps.new_zeros((), dtype=torch.float32)
        size = tuple(maps.shape[-2:])
        flows = resize_flow(flow.flatten(0, 1).float(), *size)
        mask = F.adaptive_avg_pool2d(valid.flatten(0, 1).float(), (size[0], size[1])) > 0.5
        normed = F.instance_norm(maps.flatten(0, 1).float()).unflatten(0, maps.shape[:2])
        now, then = _pairs(normed)
        change = (now - backward_warp(then.detach(), flows)).square()
        return masked_mean(change, mask & inside(flows))


class FrameDifference(nn.Module):
    """Mean absolute difference of the frame differences of output and input. Needs no flow."""

    def forward(self, clip: Tensor, photo: Tensor) -> Tensor:
        """Compare clips (B,T,3,H,W)."""
        gap = difference(clip, photo, self)
        if clip.shape[1] < 2:
            return gap.new_zeros(())
        return (gap[:, 1:] - gap[:, :-1]).abs().mean()
