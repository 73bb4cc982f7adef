"""Losses that ask a place of a picture to be more like its counterpart than like any other place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.losses.pixel import difference


class PatchNCE(nn.Module):
    """Keeps the content of the photo by contrast (CUT: Park et al. 2020), on features of the frozen network.

    At random places the features of the output have to tell the features of the photo at the same place from those at
    the other places of the same photo: cross entropy of cosine similarities, averaged over places and layers. Unlike
    a difference of features it does not ask for the photo's activations themselves: the style has more freedom.

    CUT reads the generator's own encoder through a learned projection; this one needs no network besides the frozen
    one. The reference gets no gradient.

    Args:
        layers: names of the feature layers.
        places: places drawn per layer and picture, 256 in CUT; a smaller map gives all that it has.
        temperature: divides the similarities, 0.07 in CUT.
    """

    def __init__(self, layers: Sequence[str] = ("content",), places: int = 256, temperature: float = 0.07) -> None:
        super().__init__()
        self.layers = list(layers)
        self.places = places
        self.temperature = temperature

    def forward(self, image: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> Tensor:
        """Compare two dicts of features (B,C,H,W)."""
        return torch.stack([self._contrast(image[layer], reference[layer].detach()) for layer in self.layers]).mean()

    def _contrast(self, image: Tensor, reference: Tensor) -> Tensor:
        difference(image, reference, self)  # the shapes must agree
        count = image[0, 0].numel()
        # Drawn on the CPU: the same places on every device.
        places = torch.randperm(count)[: self.places].to(image.device)
        queries, keys = (F.normalize(x.float().flatten(2)[:, :, places], dim=1) for x in (image, reference))
        with torch.autocast(image.device.type, enabled=False):
            similar = queries.transpose(1, 2) @ keys / self.temperature  # (B, places of the image, of the reference)
        own = torch.arange(len(places), device=image.device).expand(len(image), -1)
        return F.cross_entropy(similar.transpose(1, 2), own)
