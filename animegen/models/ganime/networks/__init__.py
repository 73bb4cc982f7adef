"""Networks of GANime: tokenizer, discriminator and transformer."""

from animegen.models.ganime.networks.discriminator import NLayerPatchGAN
from animegen.models.ganime.networks.tokenizer import Tokenized, Tokenizer
from animegen.models.ganime.networks.transformer import CodeTransformer

__all__ = ["CodeTransformer", "NLayerPatchGAN", "Tokenized", "Tokenizer"]
