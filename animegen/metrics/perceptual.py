"""Distances between images in the feature space of a network: a distance of our own, and LPIPS."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.nn.features import FeatureExtractor, Frozen

# The layers of LPIPS (Zhang et al. 2018). For VGG19, which it does not define, they correspond to those of VGG16.
_LAYERS = {
    "vgg19": ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4"),
    "vgg16": ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
    "squeezenet1_1": ("relu1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9"),
    "alexnet": ("relu1", "relu2", "relu3", "relu4", "relu5"),
}


class PerceptualDistance:
    """Distance between two images in normalised features, in [0, 2], lower is better: LPIPS without learned weights.

    The feature vector at every position of a layer is scaled to unit length. The squared Euclidean distance is averaged
    over positions, then over layers. The value depends on the network, so `name` contains it: `perceptual_vgg19`,
    `perceptual_squeezenet1_1_file`. With random weights it mostly measures colour differences.

    Args:
        extractor: the feature network.
        layers: the layers to compare; by default those of LPIPS.
    """

    def __init__(self, extractor: FeatureExtractor, layers: Sequence[str] | None = None) -> None:
        self.extractor = extractor
        self.layers = tuple(layers or _LAYERS[extractor.backbone])
        self.name = f"perceptual_{extractor.name}"

    def to(self, device: torch.device | str) -> PerceptualDistance:
        """Move the network to a device and return self."""
        self.extractor.to(device)
        return self

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Return {layer: (B, C, h, w)} of images (B, 3, H, W) in [-1, 1], for `between`."""
        return self.extractor(images, self.layers)

    def between(self, output: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
        """Return the distances (B,) of images whose features are given."""
        parts = []
        for layer in self.layers:
            a, b = (_unit(features[layer].float()) for features in (output, truth))
            parts.append((a - b).square().sum(1).mean((1, 2)))
        return torch.stack(parts).mean(0)

    def __call__(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the distances (B,) of images (B, 3, H, W) in [-1, 1]."""
        return self.between(self.features(output), self.features(truth))


class LPIPSMetric(Frozen):
    """LPIPS 0.1 on AlexNet (Zhang et al. 2018), lower is better: the published metric, named `lpips_alex`.

    The learned heads come with the package `lpips`; the trunk's ImageNet weights are torchvision's.

    Args:
        weights: `torchvision` (cached or downloaded), or the path of AlexNet's state dict; what is read from
            a path is named `lpips_alex_file`.

    Raises:
        AnimegenError: if the weights cannot be loaded, or are `random`.
    """

    def __init__(self, weights: str = "torchvision") -> None:
        if str(weights) == "random":
            raise AnimegenError(
                "LPIPS with random weights is not LPIPS: give AlexNet's weights (torchvision or a path), or use the"
                " perceptual distance of a feature extractor."
            )
        trunk = FeatureExtractor("alexnet", weights)
        super().__init__(_lpips_with(trunk))
        self.name = "lpips_alex" + trunk.name.removeprefix("alexnet")

    def forward(self, output: Tensor, truth: Tensor) -> Tensor:
        """Return the distances (B,) of images (B, 3, H, W) in [-1, 1]."""
        return self.network(output.float(), truth.float()).flatten()


def _unit(features: Tensor) -> Tensor:
    """Scale the feature vector (B, C, h, w) at every position to length 1, zero vectors excepted."""
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)


def _lpips_with(trunk: FeatureExtractor) -> torch.nn.Module:
    """Return the network of the package with our trunk's weights."""
    import lpips  # imported on demand: it takes a second and few commands need it

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # it passes deprecated arguments to torchvision
        network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    layers = trunk.network.get_submodule("features")
    for part in network.net.children():  # slices of AlexNet, whose layers keep torchvision's numbers as names
        for number, layer in part.named_children():
            layer.load_state_dict(layers.get_submodule(number).state_dict())
    return network
