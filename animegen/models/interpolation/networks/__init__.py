"""The networks of the family, all behind one interface (:mod:`.base`)."""

from animegen.models.interpolation.networks.base import Drawn, InbetweenNetwork, Symmetric
from animegen.models.interpolation.networks.flow import FlowPyramid, IFNet
from animegen.models.interpolation.networks.isnet import ISNet, TruthEncoder
from animegen.models.interpolation.networks.latent import LatentInterpolator
from animegen.models.interpolation.networks.splat import SoftSplatLite
from animegen.models.interpolation.networks.unet import UNet, UNetInterpolator

__all__ = [
    "Drawn",
    "FlowPyramid",
    "IFNet",
    "ISNet",
    "InbetweenNetwork",
    "LatentInterpolator",
    "SoftSplatLite",
    "Symmetric",
    "TruthEncoder",
    "UNet",
    "UNetInterpolator",
]
