"""Loss modules: each returns a float32 scalar, is averaged over the batch, and applies no weight of its own."""

from animegen.losses.adversarial import GANLoss
from animegen.losses.colour import LabColour, YUVColour
from animegen.losses.contrastive import PatchNCE
from animegen.losses.edge import NEDT, LineChamfer, LineL1
from animegen.losses.latent import KL, Commitment
from animegen.losses.motion import Census, DeepSupervision, Laplacian
from animegen.losses.perceptual import LPIPS, FeatureL1
from animegen.losses.pixel import L1, MSE, Charbonnier, GradientL1, InkBCE, TotalVariation
from animegen.losses.statistics import FeatureStatistics, NormalisedFeatures
from animegen.losses.structure import FeatureSync, GuidedFeatureL1, Structure
from animegen.losses.style import DecentralisedGramStyle, GramStyle, gram
from animegen.losses.temporal import FeatureConsistency, FrameDifference, TemporalConsistency

__all__ = [
    "KL",
    "L1",
    "LPIPS",
    "MSE",
    "NEDT",
    "Census",
    "Charbonnier",
    "Commitment",
    "DecentralisedGramStyle",
    "DeepSupervision",
    "FeatureConsistency",
    "FeatureL1",
    "FeatureStatistics",
    "FeatureSync",
    "FrameDifference",
    "GANLoss",
    "GradientL1",
    "GramStyle",
    "GuidedFeatureL1",
    "InkBCE",
    "LabColour",
    "Laplacian",
    "LineChamfer",
    "LineL1",
    "NormalisedFeatures",
    "PatchNCE",
    "Structure",
    "TemporalConsistency",
    "TotalVariation",
    "YUVColour",
    "gram",
]
