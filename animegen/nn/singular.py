"""Singular value clipping (Saito et al. 2017, TGAN), applied to the weights every few optimizer steps."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def clip_singular_values(network: nn.Module, largest: float = 1.0) -> None:
    """Clip the singular values of all convolutions and linear layers of a network, in place.

    Each weight is reshaped to the matrix (outputs, everything else), as in TGAN's code.

    Args:
        network: its weights must not be parametrised.
        largest: maximum of the singular values.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            matrix = layer.weight.flatten(1)
            u, values, vt = torch.linalg.svd(matrix.float(), full_matrices=False)
            if values[0] > largest:
                clipped = (u * values.clamp_max(largest)) @ vt
                layer.weight.copy_(clipped.view_as(layer.weight))
