"""Estimate the memory that a network needs, before it runs."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from animegen.nn.precision import inference

#: Images of fewer pixels are computed without an estimate of the memory that it takes.
ESTIMATED = 2**20


def shortage(
    network: Callable[[Tensor], Tensor], size: tuple[int, ...], device: torch.device, dtype: torch.dtype | None = None
) -> tuple[int, int] | None:
    """Return needed and available bytes if main memory does not suffice; systems end a process that takes too much.

    Arguments as for :func:`peak_memory`. ``None``: it suffices, is unknown, or the network computes elsewhere.
    """
    if device.type != "cpu" or size[-2] * size[-1] < ESTIMATED:
        return None
    needed, available = peak_memory(network, size, device, dtype), available_memory()
    return None if needed is None or available is None or needed <= available else (needed, available)


def peak_memory(
    network: Callable[[Tensor], Tensor], size: tuple[int, ...], device: torch.device, dtype: torch.dtype | None = None
) -> int | None:
    """Return how many bytes of activations exist at once in ``network(images)``, without computing anything.

    Workspace of single operations is not counted.

    Args:
        network: maps ``(B,C,H,W)`` to a tensor.
        size: height and width of the input.
        device: device of the network.
        dtype: autocast type, ``None`` for full precision.

    Returns:
        ``None`` if the graph of the network depends on the values of its activations.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _PeakMemory() as memory, inference(device, dtype):
            network(torch.empty(size, device=device))
    except RuntimeError:
        return None
    return memory.peak


class _PeakMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operations create, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and (storage := value.untyped_storage()) not in self._known:
                self._known.add(storage)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _add(self, size: int) -> None:
        self.live += size


def available_memory() -> int | None:
    """Return how many bytes of main memory can still be allocated, or ``None`` where that is unknown."""
    known = []
    with suppress(OSError, ValueError, StopIteration, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        known.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    if not known:
        with suppress(OSError, ValueError, AttributeError):
            known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError):  # the limit of a container
        known.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(known, default=None)
