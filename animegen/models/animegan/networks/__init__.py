"""Generators and discriminators of the AnimeGAN family."""

from animegen.models.animegan.networks.autoencoder import VGGAutoencoder
from animegen.models.animegan.networks.cartoongan import CartoonGAN
from animegen.models.animegan.networks.v1 import AnimeGANv1
from animegen.models.animegan.networks.v1_wide import AnimeGANv1Wide
from animegen.models.animegan.networks.v2 import AnimeGANv2, AnimeGANv2Lite, AnimeGANv2LitePlain
from animegen.models.animegan.networks.v3 import AnimeGANv3, AnimeGANv3Discriminator, AnimeGANv3DoubleTail
from animegen.models.animegan.networks.whitebox import WhiteBoxDiscriminator, WhiteBoxUNet
from animegen.nn.compact import CompactUNet
from animegen.nn.inked import InkedUNet
from animegen.nn.output import OutputActivation
from animegen.nn.refiner import Refiner

__all__ = [
    "AnimeGANv1",
    "AnimeGANv1Wide",
    "AnimeGANv2",
    "AnimeGANv2Lite",
    "AnimeGANv2LitePlain",
    "AnimeGANv3",
    "AnimeGANv3Discriminator",
    "AnimeGANv3DoubleTail",
    "CartoonGAN",
    "CompactUNet",
    "InkedUNet",
    "OutputActivation",
    "Refiner",
    "VGGAutoencoder",
    "WhiteBoxDiscriminator",
    "WhiteBoxUNet",
]
