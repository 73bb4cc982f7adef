"""A pretrained feature network that is part of a generator, and so of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.features import FeatureExtractor


class StoredFeatures(nn.Module):
    """A feature network whose weights are saved with the model that needs them to draw.

    A :class:`~animegen.nn.features.FeatureExtractor` of a loss is left out of checkpoints, since only training needs
    it. This one is built with random weights, takes those of the model's ``features`` when training begins
    (:meth:`adopt`), and is found in the checkpoint from then on: whoever applies the model needs no download.

    Args:
        backbone: as for :class:`~animegen.nn.features.FeatureExtractor`.
        trainable: whether its weights may be trained.
    """

    def __init__(self, backbone: str = "vgg19", trainable: bool = False) -> None:
        super().__init__()
        self._extractor = FeatureExtractor(backbone, "random")
        # The extractor hides its network; named here, it is part of the model.
        self.network = self._extractor.network.requires_grad_(trainable)

    @property
    def backbone(self) -> str:
        """Name of the network."""
        return self._extractor.backbone

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers, from the first to the last."""
        return self._extractor.layers

    def adopt(self, features: nn.Module | None) -> None:
        """Take over the weights of the model's feature network.

        Raises:
            AnimegenError: if there is none, or another one.
        """
        if not isinstance(features, FeatureExtractor):
            raise AnimegenError(
                "This model draws with a pretrained network, but has none: choose one, as in features=vgg19."
            )
        if features.backbone != self.backbone:
            raise AnimegenError(
                f"The generator is built on {self.backbone}, but features={features.backbone}:"
                f" set model.generator.backbone={features.backbone}."
            )
        self.network.load_state_dict(features.network.state_dict())

    def forward(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return ``{layer: (B,C,h,w)}`` of images (B,3,H,W) in [-1,1]."""
        return self._extractor(images, layers)
