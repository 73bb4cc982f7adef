"""An autoencoder on VGG features: the generator of a first student project on AnimeGAN, trained without adversary."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.models.animegan.networks.stored import StoredFeatures
from animegen.nn.conv import SLOPE, initialise, scale_channels
from animegen.nn.norm import InstanceNorm
from animegen.nn.output import OutputActivation


class UpConv(nn.Module):
    """Double the size by repetition; separable 3x3 convolution with 4 filters per channel; 1x1 convolution.

    Convolutions have biases and zero padding; instance norm without affine parameters and leaky ReLU follow the
    separable convolution and the 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, 4 * inputs, 3, padding=1, groups=inputs)
        self.pointwise = nn.Conv2d(4 * inputs, outputs, 1)
        self.mix = nn.Conv2d(outputs, outputs, 1)
        self.norm = InstanceNorm(outputs, affine=False)
        self.mix_norm = InstanceNorm(outputs, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B,inputs,H,W) to (B,outputs,2H,2W)."""
        x = self.pointwise(self.depthwise(F.interpolate(x, scale_factor=2, mode="nearest")))
        x = self.mix(F.leaky_relu(self.norm(x), SLOPE))
        return F.leaky_relu(self.mix_norm(x), SLOPE)


class VGGAutoencoder(nn.Module):
    """All convolutions of a VGG as encoder, five up-convolutions as decoder (826,387 parameters).

    The encoder leaves 1/32 of the sides, so fine detail is lost: that is what the experiment shows.

    Args:
        backbone: ``vgg19`` or ``vgg16``; its weights are adopted when training begins.
        train_encoder: train it, too (as in the project); else it stays as pretrained.
        width: factor on the decoder's channels.
        output: see :class:`~animegen.nn.output.OutputActivation`.

    Raises:
        AnimegenError: for a backbone that is no VGG.
    """

    factor = 32

    def __init__(
        self, backbone: str = "vgg19", train_encoder: bool = False, width: float = 1.0, output: str = "linear"
    ) -> None:
        super().__init__()
        if not backbone.startswith("vgg"):
            raise AnimegenError(f"The autoencoder needs features=vgg19 or features=vgg16, not {backbone}.")
        self.encoder = StoredFeatures(backbone, trainable=train_encoder)
        sizes = [512, *(scale_channels(channels, width) for channels in (256, 128, 64, 32, 16))]
        self.decoder = nn.Sequential(
            *(UpConv(inputs, outputs) for inputs, outputs in pairwise(sizes)),
            nn.Conv2d(sizes[-1], 3, 1),
        )
        self.output = OutputActivation(output)
        initialise(self.decoder, "he")

    def adopt(self, features: nn.Module | None) -> None:
        """Take over the pretrained weights of the encoder, see :meth:`StoredFeatures.adopt`."""
        self.encoder.adopt(features)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to pictures of the same shape and range; H and W are multiples of 32."""
        if images.shape[-2] % self.factor or images.shape[-1] % self.factor:
            raise AnimegenError(
                f"The autoencoder needs pictures whose sides are multiples of {self.factor}, not"
                f" {images.shape[-2]}x{images.shape[-1]}: set image_size accordingly, or pad the picture."
            )
        last = self.encoder.layers[-1]
        return self.output(self.decoder(F.max_pool2d(self.encoder(images, [last])[last], 2)))
