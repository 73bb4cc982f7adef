"""Where half precision must not reach."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` as float32, or as it is if it has higher precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
