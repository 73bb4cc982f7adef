"""Spectral normalisation (Miyato et al. 2018) in full precision under autocast.

Like ``torch.nn.utils.parametrizations.spectral_norm``, but its matrix-vector products are never in half precision: the
weight is divided by an estimate of its largest singular value, updated by one power iteration per forward pass in
training mode.

The iteration is deterministic given the weights and the saved vector, so ranks with equal weights need no
communication. Several forward passes before one backward pass are safe, but each advances the iteration: concatenate
batches and run the network once per update.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SpectralNorm(nn.Module):
    """Parametrisation that divides a weight of shape (outputs, ...) by its largest singular value.

    Args:
        weight: the initial weight.
        warmup: number of initial power iterations.
    """

    u: Tensor

    def __init__(self, weight: Tensor, warmup: int = 15) -> None:
        super().__init__()
        self.register_buffer("u", F.normalize(torch.randn(weight.shape[0]), dim=0))
        with torch.no_grad():
            for _ in range(0 if weight.is_meta else warmup):
                self._iterate(weight.flatten(1))

    def _iterate(self, matrix: Tensor) -> None:
        self.u.copy_(F.normalize(matrix @ F.normalize(matrix.T @ self.u, dim=0), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """Return ``weight`` divided by the estimate of its largest singular value."""
        if weight.is_meta:  # there are no values
            return weight
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.flatten(1)
            with torch.no_grad():
                if self.training:
                    self._iterate(matrix)
                u = self.u.clone()
                v = F.normalize(matrix.T @ u, dim=0)
            return weight / torch.dot(u, matrix @ v)


def spectral_norm(module: nn.Conv2d) -> nn.Conv2d:
    """Apply spectral normalisation to the weight of ``module`` in place and return it. Initialise the weight before."""
    parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight.detach()))
    return module
