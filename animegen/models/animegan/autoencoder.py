"""AnimeGAN's training with a generator that is built on a pretrained network."""

from __future__ import annotations

from animegen.models.animegan.module import AnimeGAN
from animegen.models.animegan.networks.autoencoder import VGGAutoencoder


class Autoencoder(AnimeGAN):
    """AnimeGAN whose generator takes over the weights of the model's feature network when training begins.

    Args: as for :class:`~animegen.models.animegan.module.AnimeGAN`.
    """

    generator: VGGAutoencoder

    def setup(self, stage: str) -> None:
        """Hand the pretrained weights over; a resumed run then replaces them by those of its checkpoint."""
        if stage == "fit":
            self.generator.adopt(self.features)
        super().setup(stage)
