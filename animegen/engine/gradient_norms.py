"""How strongly each loss term pulls at the network that it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def gradient_norms(parts: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Return the L2 norm of the gradient of each scalar with respect to all parameters together, and keep the graph.

    A term that does not depend on the parameters has the norm 0. ``.grad`` is left alone.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, part in parts.items():
        found: Sequence[Tensor | None] = ()
        if part.requires_grad and wanted:
            found = torch.autograd.grad(part, wanted, retain_graph=True, allow_unused=True)
        norms[name] = nn.utils.get_total_norm([g.detach() for g in found if g is not None]).to(part.device)
    return norms


def gradient_shares(parts: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Return the norm of the gradient of each weighted term over the sum of these norms; 0 where all are 0.

    Terms that pull against each other count with their strength: the shares say what is loud, not what wins.
    """
    norms = gradient_norms(parts, parameters)
    total = torch.stack(list(norms.values())).sum().clamp_min(torch.finfo(torch.float32).tiny)
    return {name: norm / total for name, norm in norms.items()}
