"""The generators of the AnimeGAN family."""

from animegen.models.animegan.networks.output import OutputActivation
from animegen.models.animegan.networks.v1 import AnimeGANv1
from animegen.models.animegan.networks.v2 import AnimeGANv2, AnimeGANv2Lite, AnimeGANv2LitePlain

__all__ = ["AnimeGANv1", "AnimeGANv2", "AnimeGANv2Lite", "AnimeGANv2LitePlain", "OutputActivation"]
