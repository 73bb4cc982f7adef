"""Networks for frame interpolation that several model families use."""

from animegen.nn.inbetween.base import InbetweenNetwork, InbetweenOutput
from animegen.nn.inbetween.flow import FlowPyramid, IFNet
from animegen.nn.inbetween.unet import UNet

__all__ = ["FlowPyramid", "IFNet", "InbetweenNetwork", "InbetweenOutput", "UNet"]
