"""Losses of few-shot training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from animegen.losses.pixel import difference


class FeatureMSE(nn.Module):
    """Mean squared difference of features over all values of all layers, so that large layers have more weight.

    With VGG19 and the default layers (indices 0, 3 and 5 of torchvision's list) the first two have 40 % of the values
    each and the third one 20 %, for any patch size. The reference gets no gradient.

    Source: the released code of Texler et al. 2020, which does not standardise the input of the network
    (``model.features.standardise=false``). Standardised input multiplies the loss by about 4.9.

    Args:
        layers: names of the feature layers.
    """

    def __init__(self, layers: Sequence[str] = ("conv1_1", "relu1_2", "conv2_1")) -> None:
        super().__init__()
        self.layers = list(layers)

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W)."""
        squares = [difference(image[layer], reference[layer].detach(), self).square() for layer in self.layers]
        return torch.stack([s.sum() for s in squares]).sum() / sum(s.numel() for s in squares)


class FrameDifference(nn.Module):
    """Difference between the changes of output and photo from frame to frame: mean |(f' - f) - (p' - p)|.

    It needs no optical flow. Source: arXiv 2102.05822, whose user study found it on par with losses along the flow;
    here on pixels only.
    """

    def forward(self, image: Tensor, following: Tensor, photo: Tensor, photo_following: Tensor) -> Tensor:
        """Compute the loss of output, next output, photo and next photo, (B,3,H,W) each."""
        return (difference(following, image, self) - difference(photo_following, photo, self)).abs().mean()


class MaskedL1(nn.Module):
    """Mean absolute difference over the pixels of a mask; 0 for an empty mask."""

    def forward(self, image: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss of images (B,C,H,W) within a mask (B,1,H,W) of 0 and 1."""
        error = difference(image, reference, self).abs().mean(1, keepdim=True)
        return (error * mask).sum() / mask.sum().clamp_min(1)
