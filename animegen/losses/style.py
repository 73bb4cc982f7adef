"""Style losses on Gram matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrices (B,C,C) of features (B,C,H,W), divided by C*H*W, in float32.

    The division comes before the product, since the sums over a large image exceed the range of half precision.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = features.float().flatten(2) / features[0].numel() ** 0.5
        return x @ x.transpose(1, 2)


class GramStyle(nn.Module):
    """Mean absolute difference of Gram matrices, averaged over layers.

    Each image is compared with its own reference, which may have another size and gets no gradient.

    Args:
        layers: names of the feature layers.
    """

    def __init__(self, layers: Sequence[str] = ("style",)) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W)."""
        losses = [(gram(image[layer]) - gram(reference[layer]).detach()).abs().mean() for layer in self.layers]
        return torch.stack(losses).mean()


class DecentralisedGramStyle(nn.Module):
    """AnimeGANv3's style loss: mean absolute difference of the Gram matrices of centred features.

    The mean of each channel over the image is subtracted first ("decentralised"), which makes the loss less sensitive
    to brightness and palette. The result is also divided by the number of channels, and averaged over layers. The
    reference gets no gradient.

    Args:
        layers: names of the feature layers. For separate weights as in AnimeGANv3, use one term per layer.
    """

    def __init__(self, layers: Sequence[str] = ("style",)) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W); the two may differ in size."""
        losses = [
            (gram(_centred(image[layer])) - gram(_centred(reference[layer])).detach()).abs().mean()
            / image[layer].shape[1]
            for layer in self.layers
        ]
        return torch.stack(losses).mean()


def _centred(features: Tensor) -> Tensor:
    features = features.float()
    return features - features.mean((2, 3), keepdim=True)
