"""AnimeGAN and related models: image stylization, photo to anime."""

from animegen.models.animegan.autoencoder import Autoencoder
from animegen.models.animegan.dtgan import DTGAN
from animegen.models.animegan.module import AnimeGAN
from animegen.models.animegan.nst import NeuralStyle, PixelOptimiser
from animegen.models.animegan.whitebox import WhiteBox

__all__ = ["DTGAN", "AnimeGAN", "Autoencoder", "NeuralStyle", "PixelOptimiser", "WhiteBox"]
