"""AnimeGAN and its relatives: photo to anime."""

from animegen.models.animegan.module import AnimeGAN

__all__ = ["AnimeGAN"]
