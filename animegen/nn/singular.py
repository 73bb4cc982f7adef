"""Singular value clipping (Saito et al. 2017, TGAN): no layer stretches any input by more than 1.

Where spectral norm divides a weight by its largest singular value, clipping cuts only the singular values that are
larger than 1 and leaves the others. It is done to the weights themselves, every few steps of the optimiser.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def clip_singular_values(network: nn.Module, largest: float = 1.0) -> None:
    """Cut the singular values of all convolutions and linear layers of a network, in place.

    Each weight is taken as the matrix (outputs, everything else), as in TGAN's code.

    Args:
        network: its weights must not be parametrised.
        largest: what singular values are cut to.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            matrix = layer.weight.flatten(1)
            u, values, vt = torch.linalg.svd(matrix.float(), full_matrices=False)
            if values[0] > largest:
                clipped = (u * values.clamp_max(largest)) @ vt
                layer.weight.copy_(clipped.view_as(layer.weight))
