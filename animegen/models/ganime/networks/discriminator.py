"""The patch discriminator of VQGAN, which is that of pix2pix."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.nn.conv import SLOPE, scale_channels


class NLayerPatchGAN(nn.Module):
    """4x4 convolutions of stride 2, then two of stride 1; batch norm except first and last; leaky ReLU 0.2.

    2,765,633 parameters with the defaults, 2,768,705 with condition=3. Pass real and generated images in separate
    batches: in a joint one the statistics of batch norm would depend on both.

    Args:
        channels: base width, doubled per layer up to eight times.
        layers: number of convolutions of stride 2.
        condition: channels of a condition that is concatenated to the input; GANime's is the real image (3).
        width: factor on all channel counts.

    Source: Isola et al. 2017; taming-transformers.
    """

    def __init__(self, channels: int = 64, layers: int = 3, condition: int = 0, width: float = 1.0) -> None:
        super().__init__()
        self.condition = condition
        sizes = [scale_channels(channels * min(2**level, 8), width) for level in range(layers + 1)]
        parts: list[nn.Module] = [nn.Conv2d(3 + condition, sizes[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for level, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
            stride = 2 if level < layers else 1
            parts += [
                nn.Conv2d(inputs, outputs, 4, stride, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(SLOPE),
            ]
        parts.append(nn.Conv2d(sizes[-1], 1, 4, 1, 1))
        self.layers = nn.Sequential(*parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return logits (B,1,h,w) of images (B,3,H,W) in [-1,1]; higher = more real.

        Raises:
            AnimegenError: for images of less than 32 pixels, which are smaller than a patch.
        """
        if min(images.shape[-2:]) < 32:
            raise AnimegenError("NLayerPatchGAN needs images of at least 32 pixels: set a larger data.image_size.")
        return self.layers(images if condition is None else torch.cat([images, condition], 1))
