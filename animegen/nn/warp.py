"""Backward and forward warping by optical flow.

Convention: a flow is in pixels, of shape (B, 2, H, W), channel 0 = x, 1 = y. ``flow_ab`` is on a's grid and points into
b: the content of a at p is in b at ``p + flow_ab(p)``. So ``backward_warp(b, flow_ab)`` looks like a, and
``forward_splat(a, flow_ab)`` looks like b. Pixel centres are at integers: flows of whole pixels copy values exactly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.precision import at_least_float32


def backward_warp(image: Tensor, flow: Tensor, padding: str = "border", mode: str = "bilinear") -> Tensor:
    """Sample an image along a flow: ``out(p) = image(p + flow(p))``. Differentiable in both arguments.

    Args:
        image: (B, C, H, W), the image into which the flow points.
        flow: (B, 2, H, W) in pixels.
        padding: values outside the image: ``border`` repeats its edge, ``zeros`` is 0 (blended with the edge
            within one pixel).
        mode: interpolation: ``bilinear``, or ``bicubic``, which stays sharper under repeated warping but overshoots at
            edges.

    Returns:
        (B, C, H, W) of the image's dtype.

    Raises:
        ValueError: if the shapes do not match.
    """
    _check(image, flow)
    return warp_by_grid(image, warp_grid(flow), padding, mode)


def warp_grid(flow: Tensor) -> Tensor:
    """Return where a flow (B, 2, H, W) points, as the grid (B, H, W, 2) of :func:`warp_by_grid`, at least float32."""
    flow = at_least_float32(flow)
    # With align_corners=True the centres of the first and the last pixel are at -1 and 1; that of a side of one pixel
    # is at -1.
    parts = []
    for axis, side in ((0, flow.shape[-1]), (1, flow.shape[-2])):
        last = max(side - 1, 1)
        centres = 2 * torch.arange(side, device=flow.device, dtype=flow.dtype) / last - 1
        parts.append(torch.add(centres if axis == 0 else centres[:, None], flow[:, axis], alpha=2 / last))
    return torch.stack(parts, dim=-1)


def warp_by_grid(image: Tensor, grid: Tensor, padding: str = "border", mode: str = "bilinear") -> Tensor:
    """Sample an image (B, C, H, W) at a grid from :func:`warp_grid`, like :func:`backward_warp`.

    For several images with the same flow.
    """
    with torch.autocast(image.device.type, enabled=False):
        out = F.grid_sample(
            at_least_float32(image), grid.to(at_least_float32(image).dtype), mode, padding, align_corners=True
        )
    return out.to(image.dtype)


def inside(flow: Tensor) -> Tensor:
    """Return a bool mask (B, 1, H, W) of the pixels whose flow (B, 2, H, W) ends inside the image.

    The image extends from the centre of its first to the centre of its last pixel, where bilinear interpolation needs
    no padding.
    """
    height, width = flow.shape[-2:]
    x, y = _targets(flow)
    slack = 1e-3  # precision of float32 coordinates in large images
    return ((x > -slack) & (x < width - 1 + slack) & (y > -slack) & (y < height - 1 + slack)).unsqueeze(1)


def consistent(flow_ab: Tensor, flow_ba: Tensor, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Return a bool mask (B, 1, H, W) on a's grid of the pixels visible in b, by forward-backward consistency.

    A pixel is valid if its flow ends inside the image and, with ``back = flow_ba(p + flow_ab(p))``,
    ``|flow_ab + back|^2 <= relative (|flow_ab|^2 + |back|^2) + absolute``. The constants are those of Sundaram et al.
    2010, also used by Ruder et al. 2016 and Lai et al. 2018.
    """
    back = backward_warp(flow_ba, flow_ab)
    gap = (flow_ab + back).square().sum(1, keepdim=True)
    length = flow_ab.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    return (gap <= relative * length + absolute) & inside(flow_ab)


def forward_splat(image: Tensor, flow: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Move every pixel along its flow: forward warping by softmax splatting (Niklaus and Liu 2020). Differentiable.

    Each value is distributed to the four pixels around its target with bilinear weights; values with a common target
    are averaged with the weights ``exp(importance)``, without importance with equal weights.

    Args:
        image: (B, C, H, W) on a's grid.
        flow: (B, 2, H, W), flow_ab in pixels.
        importance: (B, 1, H, W), larger in front; only differences within an image matter.

    Returns:
        The image (B, C, H, W) on b's grid, 0 in holes, and the sum of the bilinear weights (B, 1, H, W) at each pixel
        (0 = hole, about 1 = covered once), which does not depend on importance.
    """
    _check(image, flow)
    batch, channels, height, width = image.shape
    value, (x, y) = at_least_float32(image), _targets(flow)
    weight = torch.ones_like(value[:, :1])
    if importance is not None:
        highest = importance.flatten(1).amax(1).view(-1, 1, 1, 1)
        # At least exp(-60), so that isolated pixels do not vanish.
        weight = (at_least_float32(importance) - highest).clamp_min(-60).exp()
    thrown = torch.cat([value * weight, weight, torch.ones_like(weight)], 1).flatten(2)
    landed = thrown.new_zeros(batch, channels + 2, height * width)
    left, top = x.floor(), y.floor()
    for row in (top, top + 1):
        for column in (left, left + 1):
            share = (1 - (x - column).abs()) * (1 - (y - row).abs())
            hit = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long().flatten(1)
            share = (share * hit).flatten(1).unsqueeze(1)
            landed = landed.scatter_add(2, place.unsqueeze(1).expand_as(thrown), thrown * share)
    landed = landed.view(batch, channels + 2, height, width)
    total = landed[:, channels : channels + 1]
    out = landed[:, :channels] / torch.where(total > 0, total, 1.0)
    return out.to(image.dtype), landed[:, channels + 1 :]


def resize_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """Resize a flow (B, 2, h, w) and scale its vectors accordingly."""
    x, y = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False).split(1, 1)
    return torch.cat([x * (width / flow.shape[-1]), y * (height / flow.shape[-2])], 1)


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return the target coordinates x and y of the pixels, (B, H, W), at least float32."""
    flow = at_least_float32(flow)
    rows = torch.arange(flow.shape[-2], device=flow.device, dtype=flow.dtype)
    columns = torch.arange(flow.shape[-1], device=flow.device, dtype=flow.dtype)
    return columns + flow[:, 0], rows[:, None] + flow[:, 1]


def _check(image: Tensor, flow: Tensor) -> None:
    if flow.ndim != 4 or flow.shape[1] != 2 or image.shape[0] != flow.shape[0] or image.shape[2:] != flow.shape[2:]:
        raise ValueError(f"a flow of shape {tuple(flow.shape)} does not match an image of {tuple(image.shape)}")


def sight_weights(seen: Tensor) -> Tensor:
    """Return the weights (B,4,H,W) of a true flow to two frames in a loss: 1 for places in sight, .2 for hidden ones.

    Args:
        seen: (B,2,H,W) bool, whether the first and the last frame show the place.
    """
    return torch.where(seen, 1.0, 0.2).repeat_interleave(2, 1)


def uniform_motion(flow: Tensor, t: Tensor) -> Tensor:
    """Return the flow from frames at times ``t`` to two others with the same whole way, divided evenly in time.

    Args:
        flow: (...,4,H,W) in pixels, to the frame at time 0 and to that at time 1.
        t: times in (0,1), of a shape that broadcasts with ``flow``.
    """
    whole = flow[..., 2:, :, :] - flow[..., :2, :, :]
    return torch.cat([-t * whole, (1 - t) * whole], -3)
