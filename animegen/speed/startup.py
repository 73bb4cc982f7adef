"""Cost of starting a command: processor time and memory, measured in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from animegen.errors import AnimegenError

#: The command lines that are measured, besides that of :func:`stylize_command`.
COMMANDS = ("", "--version", "stylize --help", "train --help", "prepare --help", "list models", "list losses", "doctor")


class Cost(NamedTuple):
    """Cost of one process: seconds of processor time, and the largest resident memory in MiB."""

    seconds: float
    memory: float


def measure(words: Sequence[str]) -> Cost:
    """Run ``python <words>`` and return its cost."""
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # the only system that counts bytes
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def stylize_command(folder: Path) -> list[str]:
    """Write a checkpoint of a small untrained network and a photo to a folder; return the command that applies it."""
    import torch
    from PIL import Image

    from animegen.config.compose import compose_config, plain
    from animegen.config.instantiate import build

    config = plain(compose_config("train", ["experiment=toy/quickstart", "size=tiny"]))
    model = build(config["model"], "model")
    torch.save({"state_dict": model.state_dict(), "animegen": {"config": config}}, folder / "toy.ckpt")
    Image.new("RGB", (256, 256), (90, 140, 200)).save(folder / "photo.png")
    paths = [f"checkpoint={folder / 'toy.ckpt'}", f"input={folder / 'photo.png'}", f"output={folder / 'anime.png'}"]
    return ["stylize", *paths, "overwrite=true"]


def show_startup(words: Sequence[str] = ()) -> None:
    """Print the cost of each command, and of ``import torch`` for comparison.

    Raises:
        AnimegenError: if words are given, and on systems that do not report processor time.
    """
    if words:
        raise AnimegenError(f"animegen bench startup takes no keys, got '{words[0]}'.")
    if not hasattr(os, "wait4"):
        raise AnimegenError("This system does not tell the processor time of a process: use Linux or macOS.")
    print(f"{'command':<28}{'processor, s':>14}{'memory, MiB':>14}")
    with tempfile.TemporaryDirectory() as folder:
        rows = {f"animegen {command}": ["-m", "animegen", *command.split()] for command in COMMANDS}
        rows["animegen stylize (a photo)"] = ["-m", "animegen", *stylize_command(Path(folder))]
        rows["python -c 'import torch'"] = ["-c", "import torch"]
        for name, command in rows.items():
            measure(command)  # fills the file cache of the system
            cost = measure(command)
            print(f"{name:<28}{cost.seconds:>14.2f}{cost.memory:>14.0f}")
