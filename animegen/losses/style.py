"""Losses that compare the texture of pictures, wherever in the picture it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def gram(features: Tensor) -> Tensor:
    """Return the Gram matrices (B,C,C) of features (B,C,H,W), divided by C*H*W, in float32.

    The features are divided by the root of that number before the product: the sums over a large picture leave the
    range of half precision, and autocast is off for the same reason.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = features.float().flatten(2) / features[0].numel() ** 0.5
        return x @ x.transpose(1, 2)


class GramStyle(nn.Module):
    """Mean absolute difference of Gram matrices, averaged over layers.

    Each picture is compared with its own reference, so the loss does not depend on the batch size. Picture and
    reference may differ in size. The reference gets no gradient.

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
    """AnimeGANv3's style loss: mean absolute difference of the Gram matrices of centred features, per channel.

    From each channel its mean over the picture is subtracted before (hence "decentralised"): what remains is how
    features vary together, not how strong they are, so the loss says less about brightness and palette. The mean is
    divided by the number of channels once more, and averaged over layers. The reference gets no gradient.

    Args:
        layers: names of the feature layers. AnimeGANv3 weighs each by itself: give it a term of its own.
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
