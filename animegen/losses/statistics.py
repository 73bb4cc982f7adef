"""Content and style losses on feature statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from animegen.losses.pixel import difference


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    deviation, mean = torch.std_mean(features.float(), (2, 3), correction=0, keepdim=True)
    return mean, deviation


class NormalisedFeatures(nn.Module):
    """Mean squared difference of features normalised per channel, averaged over layers: MCCNet's content loss.

    The reference gets no gradient.

    Args:
        layers: names of the feature layers.
    """

    def __init__(self, layers: Sequence[str] = ("relu4_1",)) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W)."""
        losses = []
        for layer in self.layers:
            mine, theirs = (_normalised(features[layer]) for features in (image, reference))
            losses.append(difference(mine, theirs.detach(), self).square().mean())
        return torch.stack(losses).mean()


def _normalised(features: Tensor) -> Tensor:
    mean, deviation = _moments(features)
    return (features.float() - mean) / (deviation + 1e-5)


class FeatureStatistics(nn.Module):
    """Squared differences of the means and standard deviations of features: AdaIN's style loss (Huang, Belongie 2017).

    Averaged over channels, summed over layers. Image and reference may differ in size; the reference gets no
    gradient.

    Args:
        layers: names of the feature layers.
    """

    def __init__(self, layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W) of B images each."""
        total = torch.zeros((), device=image[self.layers[0]].device)
        for layer in self.layers:
            mine, theirs = _moments(image[layer]), _moments(reference[layer].detach())
            for a, b in zip(mine, theirs, strict=True):
                total = total + (a - b).square().mean()
        return total
