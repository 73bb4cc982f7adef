"""Perceptual losses on features of ImageNet networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError, did_you_mean
from animegen.losses.pixel import difference
from animegen.nn.features import FeatureExtractor


class FeatureL1(nn.Module):
    """Mean absolute difference of features, averaged over layers: AnimeGAN's content loss.

    The reference gets no gradient.

    Args:
        layers: names of the feature layers.
        per_channel: also divide by the number of channels, as AnimeGANv3 does.
    """

    def __init__(self, layers: Sequence[str] = ("content",), per_channel: bool = False) -> None:
        super().__init__()
        self.layers = list(layers)
        self.per_channel = per_channel

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W)."""
        losses = []
        for layer in self.layers:
            loss = difference(image[layer], reference[layer].detach(), self).abs().mean()
            losses.append(loss / image[layer].shape[1] if self.per_channel else loss)
        return torch.stack(losses).mean()


_NETS = {
    "alex": ("alexnet", ["relu1", "relu2", "relu3", "relu4", "relu5"]),
    "vgg": ("vgg16", ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]),
    "squeeze": ("squeezenet1_1", ["relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"]),
}


class LPIPS(nn.Module):
    """Learned perceptual image patch similarity (Zhang et al. 2018), version 0.1.

    The linear layers are those of the ``lpips`` package. The network is a
    :class:`~animegen.nn.features.FeatureExtractor`: not saved, and downloaded only with ``weights="torchvision"``.
    Unlike in the package, the gradient is 0 instead of NaN where all features are 0.

    Args:
        net: ``alex`` (the usual metric), ``vgg`` (the usual loss) or ``squeeze``.
        weights: weights of the network: ``torchvision``, a path, or ``random``. LPIPS needs ``torchvision``.

    ``name`` is ``lpips_alex``, or ``lpips_alex_random`` and ``lpips_alex_file`` for other weights.

    Raises:
        AnimegenError: if the net is unknown or the weights are unavailable.
    """

    def __init__(self, net: str = "alex", weights: str = "torchvision") -> None:
        super().__init__()
        if net not in _NETS:
            raise AnimegenError(
                f"LPIPS has no net '{net}': choose one of {', '.join(_NETS)}.{did_you_mean(net, _NETS)}"
            )
        backbone, self._layers = _NETS[net]
        self.features = FeatureExtractor(backbone, weights)
        self.name = f"lpips_{net}" + self.features.name.removeprefix(backbone)
        with resources.as_file(resources.files("lpips") / "weights" / "v0.1" / f"{net}.pth") as path:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        for index in range(len(self._layers)):
            # (1,C,1,1), constant, hence not in checkpoints.
            self.register_buffer(f"weight{index}", saved[f"lin{index}.model.1.weight"], persistent=False)

    def distance(self, image: Tensor, reference: Tensor) -> Tensor:
        """Return the distances (B,) of images (B,3,H,W) in [-1,1], 0 for equal ones."""
        difference(image, reference, self)
        with torch.autocast(image.device.type, enabled=False):
            found = self.features(torch.cat([image.float(), reference.float()]), self._layers)
            total = image.new_zeros(len(image), dtype=torch.float32)
            for index, layer in enumerate(self._layers):
                ours, theirs = _unit_length(found[layer]).chunk(2)
                total = total + ((ours - theirs).square() * self.get_buffer(f"weight{index}")).sum(1).mean((1, 2))
            return total

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Return the mean distance of images (B,3,H,W) in [-1,1]."""
        return self.distance(image, reference).mean()


def _unit_length(features: Tensor) -> Tensor:
    # The epsilon is inside the root, whose slope at 0 is infinite.
    return features * torch.rsqrt(features.square().sum(1, keepdim=True) + 1e-20)
