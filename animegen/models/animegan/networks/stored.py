"""A pretrained feature network as part of a generator."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.features import FeatureExtractor


class StoredFeatures(nn.Module):
    """A feature network that is saved in checkpoints, for generators that use one.

    A :class:`~animegen.nn.features.FeatureExtractor` of a loss is not saved, since only training needs it. This one is
    built with random weights and gets those of the model's ``features`` before training (:meth:`load_pretrained`).
    Application of a checkpoint then needs no download.

    Args:
        backbone: see :class:`~animegen.nn.features.FeatureExtractor`.
        trainable: whether the weights are trained.
    """

    def __init__(self, backbone: str = "vgg19", trainable: bool = False) -> None:
        super().__init__()
        self._extractor = FeatureExtractor(backbone, "random")
        # The extractor hides its network from state dicts; this attribute registers it.
        self.network = self._extractor.network.requires_grad_(trainable)

    @property
    def backbone(self) -> str:
        """Name of the network."""
        return self._extractor.backbone

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers, from first to last."""
        return self._extractor.layers

    def load_pretrained(self, features: nn.Module | None) -> None:
        """Load the weights of the model's feature network.

        Raises:
            AnimegenError: if the model has none, or one with another backbone.
        """
        if not isinstance(features, FeatureExtractor):
            raise AnimegenError(
                "The generator of this model needs a pretrained network: choose one, as in features=vgg19."
            )
        if features.backbone != self.backbone:
            raise AnimegenError(
                f"The generator uses {self.backbone}, but features={features.backbone}:"
                f" set model.generator.backbone={features.backbone}."
            )
        self.network.load_state_dict(features.network.state_dict())

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the features ``{layer: (B,C,h,w)}`` of images (B,3,H,W) in [-1,1]."""
        return self._extractor(images, layers)
