"""Mixed-precision helpers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@contextmanager
def inference(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Compute without gradients, and under autocast to ``dtype`` unless that is ``None``."""
    with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        yield


def computes_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bfloat16, so that it is faster than float32."""
    if device.type == "cpu":
        found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # new in torch 2.11 or later
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def trainer_precision(name: str, device: torch.device) -> str:
    """Return the precision of Lightning's trainer; ``auto`` is ``bf16-mixed`` where that is faster, else ``32-true``.

    A processor without instructions for bfloat16 emulates it, which takes 10 to 20 times as long as float32.
    """
    if name != "auto":
        return name
    return "bf16-mixed" if computes_bf16(device) else "32-true"


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` as float32, or unchanged if its precision is higher."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reflect_pad(x: Tensor, border: tuple[int, int, int, int]) -> Tensor:
    """Pad (B,C,H,W) by reflection for a convolution: (left, right, top, bottom) pixels.

    Under autocast the padding is computed in its type, in which the convolution computes anyway. ``F.pad`` would cast
    half-precision maps to float32 and back, which takes 6 to 25 times as long on a CPU.
    """
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return F.pad(x, border, mode="reflect")
    x = x.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        return F.pad(x, border, mode="reflect")
