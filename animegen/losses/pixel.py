"""Pixel losses and total variation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError


def difference(image: Tensor, reference: Tensor, loss: nn.Module) -> Tensor:
    """Return ``image - reference`` in float32.

    Raises:
        AnimegenError: if the shapes differ. Broadcasting would hide a loss term with the wrong input.
    """
    if image.shape != reference.shape:
        raise AnimegenError(
            f"{type(loss).__name__} compares tensors of one shape, not {tuple(image.shape)} and"
            f" {tuple(reference.shape)}: check what the loss term reads."
        )
    return image.float() - reference.float()


class L1(nn.Module):
    """Mean absolute difference."""

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return difference(image, reference, self).abs().mean()


class MSE(nn.Module):
    """Mean squared difference."""

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return difference(image, reference, self).square().mean()


class Charbonnier(nn.Module):
    """Mean of ``sqrt(d^2 + eps^2)``: the absolute difference, smoothed around 0.

    Args:
        eps: the loss is about quadratic below it; 1e-3 in IFRNet and AMT.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return (difference(image, reference, self).square() + self.eps**2).sqrt().mean()


class InkBCE(nn.Module):
    """Binary cross-entropy between the predicted opacity of lines and drawn lines."""

    def forward(self, logits: Tensor, ink: Tensor) -> Tensor:
        """Compare logits of opacity (B,1,H,W) with lines (B,3,H,W) in [-1,1], black on white."""
        return F.binary_cross_entropy_with_logits(logits.float(), (1 - ink[:, :1].float()) / 2)


class GradientL1(nn.Module):
    """Mean absolute difference of the gradients of two images, at several scales.

    Added to :class:`L1` it emphasises thin lines and flat areas.

    Args:
        scales: number of resolutions, each half of the one before (2x2 means).

    Raises:
        AnimegenError: for fewer than one scale, or images too small.
    """

    def __init__(self, scales: int = 2) -> None:
        super().__init__()
        if scales < 1:
            raise AnimegenError(f"GradientL1 needs scales of at least 1, not {scales}.")
        self.scales = scales

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare images (B,C,H,W): the sum over scales of the means of vertical and horizontal differences."""
        rest = difference(image, reference, self)
        least = 2**self.scales
        if min(rest.shape[-2:]) < least:
            raise AnimegenError(
                f"GradientL1 with scales={self.scales} needs images of {least}x{least} or more, not"
                f" {rest.shape[-2]}x{rest.shape[-1]}."
            )
        total = rest.new_zeros(())
        for scale in range(self.scales):
            if scale:
                rest = F.avg_pool2d(rest, 2)
            down, across = rest[..., 1:, :] - rest[..., :-1, :], rest[..., :, 1:] - rest[..., :, :-1]
            total = total + down.abs().mean() + across.abs().mean()
        return total


class TotalVariation(nn.Module):
    """Total variation: differences of neighbouring pixels.

    Args:
        power: 2 is half the mean squared difference of vertical neighbours plus the same of horizontal ones, as in
            AnimeGANv2. 1 is the mean absolute difference (Rudin, Osher, Fatemi 1992, anisotropic form), which flattens
            areas and keeps edges.

    Raises:
        AnimegenError: for another power.
    """

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        if power not in (1, 2):
            raise AnimegenError(f"TotalVariation needs power=1 or power=2, not {power}.")
        self.power = power

    def forward(self, image: Tensor) -> Tensor:
        """Return the loss of images (B,C,H,W) with at least two rows and columns."""
        x = image.float()
        down = x[..., 1:, :] - x[..., :-1, :]
        across = x[..., :, 1:] - x[..., :, :-1]
        if self.power == 1:
            return down.abs().mean() + across.abs().mean()
        return 0.5 * (down.square().mean() + across.square().mean())
