"""Losses on masks, and losses weighted by masks.

:class:`Structure` and :class:`FeatureSync` are used for mask refinement by IS-Net in "Instance-guided Cartoon Editing
with a Large-scale Dataset" (Lin et al. 2023, arXiv 2312.01943). :class:`GuidedFeatureL1` is not from a paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.losses.pixel import difference


class Structure(nn.Module):
    """Binary cross entropy and intersection over union of a mask, weighted towards its borders.

    With the weight ``w = 1 + 5 |mean of the mask in 15x15 pixels - mask|``: ``sum(w bce) / sum(w)`` plus
    ``1 - (sum(w p y) + 1) / (sum(w (p + y)) - sum(w p y) + 1)``, where p is the sigmoid of the logits; sums per image.
    """

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Compare logits (B,1,H,W) with a mask (B,1,H,W) of values in [0,1]."""
        difference(logits, mask, self)
        logits, mask = logits.float(), mask.float()
        near = F.avg_pool2d(mask, 15, stride=1, padding=7, count_include_pad=False)
        weight = 1 + 5 * (near - mask).abs()
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        entropy = (weight * entropy).sum((1, 2, 3)) / weight.sum((1, 2, 3))
        share = torch.sigmoid(logits)
        both = (weight * share * mask).sum((1, 2, 3))
        either = (weight * (share + mask)).sum((1, 2, 3)) - both
        return (entropy + 1 - (both + 1) / (either + 1)).mean()


class FeatureSync(nn.Module):
    """Mean squared difference of the feature maps of two networks, averaged over stages (IS-Net)."""

    def forward(self, stages: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Compare lists of maps (B,C,h,w); the reference gets no gradient."""
        losses = [difference(a, b.detach(), self).square().mean() for a, b in zip(stages, reference, strict=True)]
        return torch.stack(losses).mean()


class GuidedFeatureL1(nn.Module):
    """Mean absolute difference of features, with larger weights inside a mask and along its border.

    The weight ``1 + inside mask + border |mask - mean of the mask in 3x3|`` is normalised to a mean of 1 per image and
    resized to each layer.

    Args:
        names: feature layers, see :class:`~animegen.nn.features.FeatureExtractor`.
        inside: weight added inside the mask.
        border: weight added along its border.
    """

    def __init__(self, names: Sequence[str] = ("content",), inside: float = 1.0, border: float = 4.0) -> None:
        super().__init__()
        self.names, self.inside, self.border = list(names), inside, border

    def forward(self, image: Tensor, reference: Tensor, mask: Tensor, extractor: nn.Module | None) -> Tensor:
        """Compare images (B,3,H,W) in [-1,1], weighted by a mask (B,1,H,W) in [0,1].

        Raises:
            AnimegenError: if the model has no feature network.
        """
        if extractor is None:
            raise AnimegenError("it needs perceptual features: set features=vgg16 (or another network).")
        difference(image, reference, self)
        weight = self.weights(mask)
        mine = extractor(image, self.names)
        with torch.no_grad():
            theirs = extractor(reference, self.names)
        losses = []
        for name in self.names:
            gap = difference(mine[name], theirs[name], self).abs()
            losses.append((gap * F.interpolate(weight, gap.shape[-2:], mode="area")).mean())
        return torch.stack(losses).mean()

    def weights(self, mask: Tensor) -> Tensor:
        """Return the weights (B,1,H,W) of the pixels, of mean 1 per image."""
        mask = mask.float()
        border = (mask - F.avg_pool2d(mask, 3, stride=1, padding=1, count_include_pad=False)).abs()
        weight = 1 + self.inside * mask + self.border * border
        return weight / weight.mean((1, 2, 3), keepdim=True)


def motion_mask(first: Tensor, last: Tensor, threshold: float = 0.05, radius: int = 3) -> Tensor:
    """Return a mask (B,1,H,W) of 0 and 1 of the differences between two frames (B,3,H,W) in [-1,1].

    Args:
        first: a frame.
        last: another frame.
        threshold: smallest difference of a channel, black to white being 1.
        radius: dilation of the mask in pixels.
    """
    moved = ((last - first).abs().amax(1, keepdim=True) > 2 * threshold).float()
    return F.max_pool2d(moved, 2 * radius + 1, stride=1, padding=radius)
