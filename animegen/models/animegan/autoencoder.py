"""AnimeGAN training of a generator with a pretrained encoder."""

from __future__ import annotations

from animegen.models.animegan.module import AnimeGAN
from animegen.models.animegan.networks.autoencoder import VGGAutoencoder


class Autoencoder(AnimeGAN):
    """AnimeGAN whose generator loads the weights of the model's feature network before training.

    Args: see :class:`~animegen.models.animegan.module.AnimeGAN`.
    """

    generator: VGGAutoencoder

    def load_pretrained(self) -> None:
        """Load the weights of the feature network."""
        self.generator.load_pretrained(self.features)
