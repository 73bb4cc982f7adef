"""AnimeGAN training of a generator with a pretrained encoder."""

from __future__ import annotations

from animegen.models.animegan.module import AnimeGAN
from animegen.models.animegan.networks.autoencoder import VGGAutoencoder


class Autoencoder(AnimeGAN):
    """AnimeGAN whose generator loads the weights of the model's feature network before training.

    Args: see :class:`~animegen.models.animegan.module.AnimeGAN`.
    """

    generator: VGGAutoencoder

    def setup(self, stage: str) -> None:
        """Load the pretrained weights; a resumed run replaces them by those of its checkpoint."""
        if stage == "fit":
            self.generator.load_pretrained(self.features)
        super().setup(stage)
