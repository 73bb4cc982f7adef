"""Shares of this machine for runs that train side by side."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from animegen.errors import AnimegenError
from animegen.locks import locked
from animegen.media.video.stages import count_cores

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """A share of the machine.

    Attributes:
        threads: number of threads; 0 leaves the environment as it is.
        gpus: visible CUDA devices; ``None`` leaves the environment as it is.
    """

    threads: int = 0
    gpus: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment of a command that runs in this share."""
        changed = {"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}
        if self.gpus is not None:
            changed["CUDA_VISIBLE_DEVICES"] = self.gpus
        if "SLURM_JOB_ID" in os.environ:
            # Lightning takes each task of a Slurm job for one of its processes, except in a shell called 'bash'.
            changed["SLURM_JOB_NAME"] = "bash"
        return {**os.environ, **changed}


def share_machine(count: int, cores: int | None = None, gpus: Sequence[str] | None = None) -> list[Slot]:
    """Return ``count`` equal shares of this machine.

    With more GPUs than shares each gets several; with fewer, several shares use the same one.

    Args:
        count: number of shares.
        cores: number of cores; ``None`` counts those that this process may use.
        gpus: names of the CUDA devices; ``None`` takes :func:`list_gpus`.
    """
    cores = cores or count_cores()
    gpus = list_gpus() if gpus is None else gpus
    slots = []
    for number in range(count):
        mine = gpus[number::count] or ([gpus[number % len(gpus)]] if gpus else [])
        slots.append(Slot(max(1, cores // count), ",".join(mine) if mine else None))
    return slots


def list_gpus() -> list[str]:
    """Return the names of the CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    import torch  # takes seconds

    count = torch.cuda.device_count()
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[:count] if visible else [str(number) for number in range(count)]


def default_count(gpus: Sequence[str]) -> int:
    """Return the default number of shares: one per GPU, or one for every four cores."""
    return len(gpus) or max(1, count_cores() // 4)


@contextlib.contextmanager
def free_slot(
    folder: Path, count: int | None = None, gpus: Sequence[str] | None = None
) -> Iterator[tuple[Slot, int | None]]:
    """Wait for a share of this machine that no other run of a grid uses, and hold it.

    Args:
        folder: of the grid.
        count: number of shares; ``None`` takes :func:`default_count`.
        gpus: names of the CUDA devices; ``None`` takes :func:`list_gpus`.

    Yields:
        The share, and the descriptor that processes must inherit to hold it (see :func:`animegen.locks.locked`).
    """
    gpus = list_gpus() if gpus is None else gpus
    slots = share_machine(count or default_count(gpus), gpus=gpus)
    # A folder of this machine: locks of files are not reliable on network file systems.
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / f"animegen-{os.getuid() if hasattr(os, 'getuid') else 0}-{name}"
    while True:
        for number, slot in enumerate(slots):
            with contextlib.ExitStack() as stack:
                try:
                    lock = stack.enter_context(locked(place / str(number)))
                except AnimegenError:
                    continue
                yield slot, lock
                return
        time.sleep(_POLL_SECONDS)
