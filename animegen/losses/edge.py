"""Losses of lines: are they where they should be, not only: do colours agree. All return float32 scalars."""

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
    """Mean difference of the normalised distances to the lines (see `animegen.nn.lines`): EISAI's line loss.

    Where colours agree everywhere but on a line that lies one pixel beside its place, a mean difference of pixels sees
    two thin lines; this sees everything round them. EISAI predicts the distance map by a further network, since
    the exact one has no gradient; here both pictures go through the soft one.

    Args:
        sigma: width of the lines, see :func:`~animegen.nn.lines.line_strength`.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare pictures (B,3,H,W) in [-1,1]."""
        mine, theirs = (soft_normalised_distance(soft_lines(x, self.sigma)) for x in (image, reference.detach()))
        return difference(mine, theirs, self).abs().mean()


class LineChamfer(nn.Module):
    """How far the lines of a picture lie from those of the reference, as shares of the longer side, per pixel.

    One way exact (the picture's soft lines times the distance to the reference's), the other way soft (the reference's
    lines times the normalised distance to the picture's, brought to the same unit where both are small).

    Args:
        sigma: width of the lines, see :func:`~animegen.nn.lines.line_strength`.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare pictures (B,3,H,W) in [-1,1]."""
        difference(image, reference, self)
        lines = soft_lines(image, self.sigma)
        theirs = line_mask(reference, self.sigma)
        # Beyond the reach of the soft distance, far is far.
        limit = max(image.shape[-2:]) / REACH
        there = (lines * distance(theirs).clamp_max(limit)).mean() / max(image.shape[-2:])
        back = (theirs * soft_normalised_distance(lines)).mean() / REACH
        return 0.5 * (there + back)


class LineL1(nn.Module):
    """Mean absolute difference of the difference-of-Gaussians maps that lines are found in, black to white being 1.

    Args:
        sigma: width of the lines, see :func:`~animegen.nn.lines.line_strength`.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare pictures (B,3,H,W) in [-1,1]."""
        return difference(line_strength(image, self.sigma), line_strength(reference, self.sigma), self).abs().mean()
