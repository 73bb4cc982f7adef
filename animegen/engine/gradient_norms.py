"""Gradient norms of single loss terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def gradient_norms(parts: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Return the L2 norm of the gradient of each scalar with respect to all parameters; the graph is kept.

    The norm of a term that does not depend on the parameters is 0. ``.grad`` is not modified.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, part in parts.items():
        gradients: Sequence[Tensor | None] = ()
        if part.requires_grad and trainable:
            gradients = torch.autograd.grad(part, trainable, retain_graph=True, allow_unused=True)
        norms[name] = nn.utils.get_total_norm([g.detach() for g in gradients if g is not None]).to(part.device)
    return norms


def relative_gradient_norms(parts: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Return the gradient norm of each weighted term divided by the sum of these norms; 0 if all are 0.

    They measure the size of the gradients, not their direction: gradients of opposite terms do not cancel.
    """
    norms = gradient_norms(parts, parameters)
    total = torch.stack(list(norms.values())).sum().clamp_min(torch.finfo(torch.float32).tiny)
    return {name: norm / total for name, norm in norms.items()}
