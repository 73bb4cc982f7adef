"""Losses on line position."""

from __future__ import annotations

from torch import Tensor, nn

from animegen.losses.pixel import difference
from animegen.nn.lines import (
    REACH,
    distance,
    line_mask,
    line_strength,
    soft_lines,
    soft_normalised_distance,
)


class NEDT(nn.Module):
    """Mean absolute difference of the normalised distances to the lines (see `animegen.nn.lines`): EISAI's line loss.

    A displaced line affects the distances all around it, but only a few pixels of an L1 loss. EISAI predicts the
    distance map by a further network, since the exact one is not differentiable; this loss uses the soft one.

    Args:
        sigma: see :func:`~animegen.nn.lines.line_strength`.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W) in [-1,1]."""
        mine, theirs = (soft_normalised_distance(soft_lines(x, self.sigma)) for x in (image, reference.detach()))
        return difference(mine, theirs, self).abs().mean()


class LineChamfer(nn.Module):
    """Chamfer distance between the lines of image and reference, as a fraction of the longer side, per pixel.

    The distance from the image's soft lines to the reference's is exact; that from the reference's lines to the
    image's is soft, scaled to the same unit for small distances.

    Args:
        sigma: see :func:`~animegen.nn.lines.line_strength`.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W) in [-1,1]."""
        difference(image, reference, self)
        lines = soft_lines(image, self.sigma)
        theirs = line_mask(reference, self.sigma)
        # Clamp distances beyond the soft range.
        limit = max(image.shape[-2:]) / REACH
        there = (lines * distance(theirs).clamp_max(limit)).mean() / max(image.shape[-2:])
        back = (theirs * soft_normalised_distance(lines)).mean() / REACH
        return 0.5 * (there + back)


class LineL1(nn.Module):
    """Mean absolute difference of the line strengths, see :func:`~animegen.nn.lines.line_strength`.

    Args:
        sigma: see there.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,3,H,W) in [-1,1]."""
        return difference(line_strength(image, self.sigma), line_strength(reference, self.sigma), self).abs().mean()
