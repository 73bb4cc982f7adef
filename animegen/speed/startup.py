"""CPU time and memory of starting a command, measured in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from animegen.errors import AnimegenError

#: What is measured, a command line each.
COMMANDS = ("", "--version", "stylize --help", "train --help", "prepare --help", "list models", "list losses", "doctor")


class Cost(NamedTuple):
    """Of one process: seconds of the processor, and the largest resident memory in MiB."""

    seconds: float
    memory: float


def measure(command: str) -> Cost:
    """Run ``animegen <command>`` and return time and memory."""
    words = [sys.executable, "-m", "animegen", *command.split()]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # only macOS counts bytes
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def show_startup(words: Sequence[str] = ()) -> None:
    """Print the cost of starting each command.

    Raises:
        AnimegenError: for any arguments, and on systems that do not report it.
    """
    if words:
        raise AnimegenError(f"animegen bench startup takes no keys, got '{words[0]}'.")
    if not hasattr(os, "wait4"):
        raise AnimegenError("This system does not report the CPU time of a process: use Linux or macOS.")
    print(f"{'command':<28}{'processor, s':>14}{'memory, MiB':>14}")
    for command in COMMANDS:
        measure(command)  # the files are in the memory of the system afterwards
        cost = measure(command)
        print(f"animegen {command:<19}{cost.seconds:>14.2f}{cost.memory:>14.0f}")
