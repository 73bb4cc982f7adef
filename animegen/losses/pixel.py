"""Losses that compare pictures value by value, or a picture with its neighbours. All return float32 scalars."""

from __future__ import annotations

from torch import Tensor, nn

from animegen.core.errors import AnimegenError


def difference(image: Tensor, reference: Tensor, loss: nn.Module) -> Tensor:
    """Return ``image - reference`` in float32.

    Raises:
        AnimegenError: if the shapes differ; broadcasting would hide a term that reads the wrong thing.
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
    """Mean of ``sqrt(d^2 + eps^2)``: the absolute difference, rounded off around 0.

    Args:
        eps: below it the loss is quadratic. 1e-3 as in IFRNet and AMT.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare two tensors of one shape."""
        return (difference(image, reference, self).square() + self.eps**2).sqrt().mean()


class TotalVariation(nn.Module):
    """How much neighbouring pixels differ.

    Args:
        power: 2 is half the mean squared difference of vertical neighbours plus the same of horizontal ones, as in
            AnimeGANv2. 1 is the mean absolute difference of both (Rudin, Osher, Fatemi 1992, anisotropic form): it
            drives small differences to exactly nothing and leaves large ones alone: areas become flat, lines stay.

    Raises:
        AnimegenError: for another power.
    """

    def __init__(self, power: int = 2) -> None:
        super().__init__()
        if power not in (1, 2):
            raise AnimegenError(f"TotalVariation knows power=1 and power=2, not {power}.")
        self.power = power

    def forward(self, image: Tensor) -> Tensor:
        """Measure images (B,C,H,W) with at least two rows and columns."""
        x = image.float()
        down = x[..., 1:, :] - x[..., :-1, :]
        across = x[..., :, 1:] - x[..., :, :-1]
        if self.power == 1:
            return down.abs().mean() + across.abs().mean()
        return 0.5 * (down.square().mean() + across.square().mean())
