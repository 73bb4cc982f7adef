"""Where half precision must not reach, and where it should not be left."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` as float32, or as it is if it has higher precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reflect_pad(x: Tensor, border: tuple[int, int, int, int]) -> Tensor:
    """Pad (B,C,H,W) by reflection for a convolution: (left, right, top, bottom) pixels.

    Autocast would make half-precision maps float32 for this and half again for the convolution: 6 to 25 times as
    dear on a CPU. Where it is on, padding happens in its type, to which the convolution brings ``x`` anyway.
    """
    if has_torch_function_unary(x):  # one step for those who record what a network does
        return handle_torch_function(reflect_pad, (x,), x, border)
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return F.pad(x, border, mode="reflect")
    x = x.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        return F.pad(x, border, mode="reflect")
