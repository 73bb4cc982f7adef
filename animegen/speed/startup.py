"""Cost of starting a command: CPU time and memory, measured in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from animegen.errors import AnimegenError

#: The command lines that are measured, besides `STYLIZE`.
COMMANDS = ("", "--version", "stylize --help", "train --help", "prepare --help", "list models", "list losses", "doctor")
#: Applies what :func:`write_example` has written to the folder of the process.
STYLIZE = "stylize checkpoint=toy.ckpt input=photo.png output=anime.png overwrite=true"


class Cost(NamedTuple):
    """Cost of one process: seconds of processor time, the largest resident memory in MiB, and its exit code."""

    seconds: float
    memory: float
    code: int


#: Runs a command in a small process: what is measured begins with the peak memory of the process that starts it.
_MEASURE = """
import json, os, subprocess, sys
null = subprocess.DEVNULL
process = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=null, stderr=null)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""


def measure(words: Sequence[str], folder: str | None = None) -> Cost:
    """Run ``python <words>`` in a folder and return its cost, whatever the memory of this process.

    Raises:
        AnimegenError: if the process that measures fails; with the last line that it printed.
    """
    line = [sys.executable, "-S", "-c", _MEASURE, *words]
    ended = subprocess.run(line, capture_output=True, cwd=folder, text=True)
    if ended.returncode:
        reason = (ended.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise AnimegenError(
            f"Python processes cannot be measured here ({reason}): close other programs, or use another machine."
        )
    seconds, peak, code = json.loads(ended.stdout)
    return Cost(seconds, peak / (2**20 if sys.platform == "darwin" else 2**10), code)  # only macOS counts bytes


def write_example(folder: str) -> None:
    """Write ``toy.ckpt``, a small untrained network, and ``photo.png`` to a folder."""
    import torch
    from PIL import Image

    from animegen.config.compose import compose_config, plain
    from animegen.config.instantiate import build

    config = plain(compose_config("train", ["experiment=toy/quickstart", "size=tiny"]))
    model = build(config["model"], "model")
    torch.save({"state_dict": model.state_dict(), "animegen": {"config": config}}, Path(folder) / "toy.ckpt")
    Image.new("RGB", (256, 256), (90, 140, 200)).save(Path(folder) / "photo.png")


def show_startup(words: Sequence[str] = ()) -> None:
    """Print the cost of each command, and of ``import torch`` for comparison.

    Raises:
        AnimegenError: if words are given, and on systems that do not report processor time.
    """
    if words:
        raise AnimegenError(f"animegen bench startup takes no keys, got '{words[0]}'.")
    if not hasattr(os, "wait4"):
        raise AnimegenError("This system does not report the CPU time of a process: use Linux or macOS.")
    print(f"{'command':<28}{'processor, s':>14}{'memory, MiB':>14}")
    with tempfile.TemporaryDirectory() as folder:
        rows = {f"animegen {command}": ["-m", "animegen", *command.split()] for command in COMMANDS}
        rows["animegen stylize (a photo)"] = ["-m", "animegen", *STYLIZE.split()]
        rows["python -c 'import torch'"] = ["-c", "import torch"]
        # In a process of its own: a process starts with the memory of its parent, which must not hold torch.
        write = f"from animegen.speed.startup import write_example; write_example({folder!r})"
        subprocess.run([sys.executable, "-c", write], check=True)
        for name, command in rows.items():
            measure(command, folder)  # fills the file cache of the system
            cost = measure(command, folder)
            print(f"{name:<28}{cost.seconds:>14.2f}{cost.memory:>14.0f}")
