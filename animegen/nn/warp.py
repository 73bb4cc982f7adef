"""Moving pictures along a flow: backward (every pixel fetches) and forward (every pixel is thrown).

The one convention: a flow is in pixels of the picture it belongs to, shape (B, 2, H, W), channel 0 = x, 1 = y.
``flow_ab`` lies on a's grid and points into b: what a shows at p, b shows at ``p + flow_ab(p)``. So
``backward_warp(b, flow_ab)`` looks like a, and ``forward_splat(a, flow_ab)`` looks like b. Pixel centres lie at whole
numbers, a flow of a whole number of pixels moves values without touching them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.precision import at_least_float32


def backward_warp(image: Tensor, flow: Tensor, padding: str = "border", mode: str = "bilinear") -> Tensor:
    """Return the picture seen through a flow: ``out(p) = image(p + flow(p))``.

    Args:
        image: (B, C, H, W), the picture into which the flow points.
        flow: (B, 2, H, W) in pixels.
        padding: what lies outside the picture: ``border`` repeats its edge, ``zeros`` is 0 (a position less than
            a pixel outside is blended with the edge).
        mode: what lies between the pixels: ``bilinear``, or ``bicubic``, which keeps a picture sharp that is moved
            again and again, but overshoots at edges.

    Returns:
        (B, C, H, W) in the picture's type. Differentiable in both arguments.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    _check(image, flow)
    height, width = image.shape[-2:]
    x, y = _targets(flow)
    # grid_sample with align_corners=True puts the centres of the first and the last pixel at -1 and 1. A side of one
    # pixel has no such scale; its only pixel lies at -1, so anything that leaves it lies outside.
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    with torch.autocast(image.device.type, enabled=False):
        out = F.grid_sample(
            at_least_float32(image), grid.to(at_least_float32(image).dtype), mode, padding, align_corners=True
        )
    return out.to(image.dtype)


def inside(flow: Tensor) -> Tensor:
    """Return the mask (B, 1, H, W) bool of the pixels that a flow (B, 2, H, W) leads into the picture.

    The picture reaches from the centre of its first to the centre of its last pixel: there bilinear
    interpolation invents nothing.
    """
    height, width = flow.shape[-2:]
    x, y = _targets(flow)
    slack = 1e-3  # float32 cannot place a pixel of a large picture more exactly
    return ((x > -slack) & (x < width - 1 + slack) & (y > -slack) & (y < height - 1 + slack)).unsqueeze(1)


def consistent(flow_ab: Tensor, flow_ba: Tensor, relative: float = 0.01, absolute: float = 0.5) -> Tensor:
    """Return the mask (B, 1, H, W) bool on a's grid: is the pixel seen in b, as far as the two flows agree?

    A pixel is valid if there and back ends where it began: with ``back = flow_ba(p + flow_ab(p))``,
    ``|flow_ab + back|^2 <= relative (|flow_ab|^2 + |back|^2) + absolute``, and if the flow leads into the picture. The
    constants are those of Sundaram et al. 2010, which Ruder et al. 2016 and Lai et al. 2018 use as well.
    """
    back = backward_warp(flow_ba, flow_ab)
    gap = (flow_ab + back).square().sum(1, keepdim=True)
    length = flow_ab.square().sum(1, keepdim=True) + back.square().sum(1, keepdim=True)
    return (gap <= relative * length + absolute) & inside(flow_ab)


def forward_splat(image: Tensor, flow: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Throw every pixel to where its flow leads and average what meets there (Niklaus and Liu 2020).

    Each value lands on the four pixels round its target with bilinear weights; what several pixels throw at the same
    place is averaged with the weights ``exp(importance)`` ("softmax splatting": the most important one wins; without
    importance a plain average).

    Args:
        image: (B, C, H, W) on a's grid.
        flow: (B, 2, H, W), flow_ab in pixels.
        importance: (B, 1, H, W), larger in front; only differences within a picture count.

    Returns:
        The picture (B, C, H, W) on b's grid, 0 where nothing landed, and the bilinear weight (B, 1, H, W) that landed
        on each pixel (0 = hole, about 1 = covered once). Differentiable; the weight does not depend on importance.
    """
    _check(image, flow)
    batch, channels, height, width = image.shape
    value, (x, y) = at_least_float32(image), _targets(flow)
    weight = torch.ones_like(value[:, :1])
    if importance is not None:
        highest = importance.flatten(1).amax(1).view(-1, 1, 1, 1)
        # Not below exp(-60): what lies alone must still be seen, however unimportant.
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
    """Scale a flow (B, 2, h, w) to another picture size, its vectors with it."""
    factor = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, (height, width), mode="bilinear", align_corners=False) * factor


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the pixels (B, H, W) are led: x and y, at least float32."""
    flow = at_least_float32(flow)
    rows = torch.arange(flow.shape[-2], device=flow.device, dtype=flow.dtype)
    columns = torch.arange(flow.shape[-1], device=flow.device, dtype=flow.dtype)
    return columns + flow[:, 0], rows[:, None] + flow[:, 1]


def _check(image: Tensor, flow: Tensor) -> None:
    if flow.ndim != 4 or flow.shape[1] != 2 or image.shape[0] != flow.shape[0] or image.shape[2:] != flow.shape[2:]:
        raise ValueError(f"a flow of shape {tuple(flow.shape)} does not belong to a picture of {tuple(image.shape)}")
