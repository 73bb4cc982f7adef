"""A generator with a VGG encoder, from AnimeGeneration, a PyTorch reimplementation of AnimeGAN by students (2020)."""

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
    """Nearest-neighbour upsampling by 2, separable 3x3 convolution with 4 filters per channel, 1x1 convolution.

    Convolutions have biases and zero padding. Instance norm without affine parameters and leaky ReLU follow the
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

    The encoder reduces the resolution to 1/32, so fine detail is lost; the experiment demonstrates this limit.

    Args:
        backbone: ``vgg19`` or ``vgg16``; its weights are loaded before training.
        train_encoder: train the encoder, too (as in the project); otherwise it is frozen.
        width: factor on the channels of the decoder.
        output: see :class:`~animegen.nn.output.OutputActivation`.

    Raises:
        AnimegenError: for a backbone that is not a VGG.
    """

    size_divisor = 32

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

    def load_pretrained(self, features: nn.Module | None) -> None:
        """Load the pretrained weights of the encoder, see :meth:`StoredFeatures.load_pretrained`."""
        self.encoder.load_pretrained(features)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B,3,H,W) in [-1,1] to images of the same shape and range; H and W are multiples of 32."""
        if images.shape[-2] % self.size_divisor or images.shape[-1] % self.size_divisor:
            raise AnimegenError(
                f"The autoencoder needs images whose sides are multiples of {self.size_divisor}, not"
                f" {images.shape[-2]}x{images.shape[-1]}: set image_size accordingly, or pad the image."
            )
        last = self.encoder.layers[-1]
        return self.output(self.decoder(F.max_pool2d(self.encoder(images, [last])[last], 2)))
