"""What a model may know about the training that it is part of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Environment:
    """Data, run folder and processes of a training; the default is a single process without a data module.

    Attributes:
        data: the data module; ``None`` if bare data loaders are used.
        folder: the run folder.
        processes: number of processes.
        first: whether this is the first process, which writes files.
        barrier: waits until all processes have called it.
        mean: averages a tensor over all processes.
    """

    data: Any = None
    folder: Path = Path()
    processes: int = 1
    first: bool = True
    barrier: Callable[[], object] = lambda: None
    mean: Callable[[Tensor], Tensor] = lambda value: value
