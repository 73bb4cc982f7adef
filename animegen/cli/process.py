"""Settings of a process that runs networks: its memory, and how its threads wait for each other."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from collections.abc import Iterator

#: Parameters of glibc's ``mallopt``, and their values. Blocks from the first on (``M_MMAP_THRESHOLD``) go back to the
#: system as soon as they are freed, free memory at the end of the heap beyond the second (``M_TRIM_THRESHOLD``).
#: Older versions of glibc refuse more than 32 MiB for the first. The second must not be set then: glibc would no longer
#: raise the first from its start of 128 KiB, and give back far more than it does by default.
_KEPT = {-3: 2**30, -1: 2**31 - 1}
#: Variables by which a user sets the same.
_OWN_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
#: Turns of a loop in which a thread of OpenMP waits before it sleeps: 70 microseconds on Xeons of 2 GHz, whose
#: instruction for it takes 140 cycles.
SPIN = 1000
_OWN_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_briefly() -> None:
    """Let the threads of torch give up their core soon when they wait; before torch is imported.

    By default a thread of GNU's OpenMP occupies its core for 300,000 turns, some 20 ms. If other work takes the core
    of a thread for a moment (another program, the encoder of a film), all others wait so, and the other work gets no
    core either. Settings of the user stay as they are.
    """
    if not any(name in os.environ for name in _OWN_WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN)


def keep_freed_memory() -> bool:
    """Let the C library keep blocks up to a gigabyte that were freed; return whether it does.

    By default glibc gives blocks of more than 32 MiB back to the system at once. The maps of a network are as large,
    and the next layer asks for the same again: the system then clears every page of them, in each layer and step. The
    process holds the memory until its end, and its peak may grow, since free blocks of other sizes lie between those
    in use. Other C libraries, older versions of glibc (such as 2.31), and settings of the user, stay as they are.
    """
    if any(name in os.environ for name in _OWN_MEMORY):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not of glibc: macOS, musl, Windows
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _KEPT.items())


@contextlib.contextmanager
def first_imports() -> Iterator[None]:
    """Import PyTorch, and what is imported with it, without the garbage collector.

    The collector looks for unused objects whenever some hundreds have been created. Modules create hundreds of
    thousands, all of which stay. They are also left out of all later searches of the process. Where PyTorch is
    imported already, nothing changes.
    """
    if "torch" in sys.modules:
        yield
        return
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
