"""Losses as a library: modules that return a float32 scalar, hold no weight, and do not depend on the batch size."""

from animegen.losses.adversarial import GANLoss
from animegen.losses.colour import LabColour, YUVColour
from animegen.losses.contrastive import PatchNCE
from animegen.losses.perceptual import LPIPS, FeatureL1
from animegen.losses.pixel import L1, MSE, Charbonnier, TotalVariation
from animegen.losses.style import DecentralisedGramStyle, GramStyle, gram

__all__ = [
    "L1",
    "LPIPS",
    "MSE",
    "Charbonnier",
    "DecentralisedGramStyle",
    "FeatureL1",
    "GANLoss",
    "GramStyle",
    "LabColour",
    "PatchNCE",
    "TotalVariation",
    "YUVColour",
    "gram",
]
