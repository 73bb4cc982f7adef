"""Contrastive losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.losses.pixel import difference


class PatchNCE(nn.Module):
    """Patchwise contrastive content loss (CUT: Park et al. 2020) on features of a frozen network.

    At random positions, the output's features must identify the photo's features at the same position among those at
    the other positions: cross entropy of cosine similarities, averaged over positions and layers. Unlike a difference
    of features it does not demand the photo's activations, which leaves more freedom for the style.

    CUT uses the generator's encoder and a learned projection instead. The reference gets no gradient.

    Args:
        layers: names of the feature layers.
        places: number of positions drawn per layer and image, 256 in CUT; at most all.
        temperature: divisor of the similarities, 0.07 in CUT.
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
        difference(image, reference, self)  # checks the shapes
        count = image[0, 0].numel()
        # Drawn on the CPU, for equal positions on every device.
        places = torch.randperm(count)[: self.places].to(image.device)
        queries, keys = (F.normalize(x.float().flatten(2)[:, :, places], dim=1) for x in (image, reference))
        with torch.autocast(image.device.type, enabled=False):
            similar = queries.transpose(1, 2) @ keys / self.temperature  # (B, image positions, reference positions)
        own = torch.arange(len(places), device=image.device).expand(len(image), -1)
        return F.cross_entropy(similar.transpose(1, 2), own)
