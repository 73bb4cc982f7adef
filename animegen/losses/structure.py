"""Three losses round arXiv 2312.01943 ("Instance-guided Cartoon Editing with a Large-scale Dataset", Lin et al. 2023).

That paper is about character masks, not about perceptual losses: it refines masks by IS-Net. What its training has, and
what fits here, is a loss that stresses the borders of a mask (:class:`Structure`) and IS-Net's demand that the
features of the network resemble those of the truth (:class:`FeatureSync`). :class:`GuidedFeatureL1` is ours: a
perceptual loss that looks where a mask says that things happen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.losses.pixel import difference


class Structure(nn.Module):
    """Cross entropy and intersection over union of a mask, both stressing its borders.

    With the weight ``w = 1 + 5 |mean of the mask in 15x15 pixels - mask|``: ``sum(w bce) / sum(w)`` plus
    ``1 - (sum(w p y) + 1) / (sum(w (p + y)) - sum(w p y) + 1)``, p being the sigmoid of the logits; sums per picture.
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
    """Mean squared difference of the maps of two networks, averaged over stages: IS-Net's feature synchronisation."""

    def forward(self, stages: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
        """Compare lists of maps (B,C,h,w); the reference gets no gradient."""
        losses = [difference(a, b.detach(), self).square().mean() for a, b in zip(stages, reference, strict=True)]
        return torch.stack(losses).mean()


class GuidedFeatureL1(nn.Module):
    """Difference of deep features, weighted by place: 1 everywhere, more inside a mask, most along its border.

    ``W = 1 + inside mask + border |mask - mean of the mask in 3x3|``, made to have a mean of 1 per picture and brought
    to the size of each layer. The loss runs the features itself, since it needs the mask as well.

    Args:
        names: feature layers, see :class:`~animegen.nn.features.FeatureExtractor`.
        inside: weight added within the mask.
        border: weight added along its border.
    """

    def __init__(self, names: Sequence[str] = ("content",), inside: float = 1.0, border: float = 4.0) -> None:
        super().__init__()
        self.names, self.inside, self.border = list(names), inside, border

    def forward(self, image: Tensor, reference: Tensor, mask: Tensor, extractor: nn.Module | None) -> Tensor:
        """Compare pictures (B,3,H,W) in [-1,1] within a mask (B,1,H,W) of values in [0,1].

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
        """Return the weight of every pixel (B,1,H,W), of mean 1 per picture."""
        mask = mask.float()
        border = (mask - F.avg_pool2d(mask, 3, stride=1, padding=1, count_include_pad=False)).abs()
        weight = 1 + self.inside * mask + self.border * border
        return weight / weight.mean((1, 2, 3), keepdim=True)


def motion_mask(first: Tensor, last: Tensor, threshold: float = 0.05, radius: int = 3) -> Tensor:
    """Return where two frames (B,3,H,W) in [-1,1] differ, (B,1,H,W) of 0 and 1: a mask where there is no better one.

    Args:
        first: a frame.
        last: another frame.
        threshold: smallest difference of a channel, black to white being 1.
        radius: by so many pixels the places are widened.
    """
    moved = ((last - first).abs().amax(1, keepdim=True) > 2 * threshold).float()
    return F.max_pool2d(moved, 2 * radius + 1, stride=1, padding=radius)
