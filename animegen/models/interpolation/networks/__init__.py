"""Frame interpolation networks, all with the interface of :class:`~animegen.nn.inbetween.base.InbetweenNetwork`."""

from animegen.models.interpolation.networks.isnet import ISNet, TruthEncoder
from animegen.models.interpolation.networks.latent import LatentInterpolator
from animegen.models.interpolation.networks.splat import SoftSplatLite
from animegen.models.interpolation.networks.unet import UNetInterpolator
from animegen.models.interpolation.networks.warp_fusion import WarpFusion
from animegen.nn.inbetween import IFNet

__all__ = ["IFNet", "ISNet", "LatentInterpolator", "SoftSplatLite", "TruthEncoder", "UNetInterpolator", "WarpFusion"]
