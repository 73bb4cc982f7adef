"""Which libraries a command imports: help, lists and mistakes are answered without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from animegen.cli.main import COMMANDS

HEAVY = ("torch", "torchvision", "torchmetrics", "pytorch_lightning", "matplotlib", "cv2", "scipy", "av", "tensorboard")
SCRIPT = """
import contextlib, io, json, sys
from animegen.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    code = main(json.loads(sys.argv[1]))
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def imported(*words: str) -> tuple[int, set[str]]:
    """Run a command in a process of its own; return its exit code and the packages that it has imported."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words)], capture_output=True, text=True, cwd=root, timeout=120
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 0),
        (["--help"], 0),
        (["--version"], 0),
        (["trian"], 2),
        *[([name, "--help"], 0) for name in COMMANDS],
        (["stylize"], 2),
        (["stylize", "checkpoint=a", "input=b", "output=c", "strength=2"], 2),
        (["generate", "frames=1"], 2),
        (["prepare", "lenght=3"], 2),
        (["compare", "metrics="], 2),
        (["list", "models"], 0),
        (["list"], 0),
    ],
)
def test_without_heavy_libraries(words: list[str], code: int) -> None:
    ended, modules = imported(*words)
    assert ended == code
    assert not modules & set(HEAVY)


@pytest.mark.parametrize("words", [[], ["--help"], ["--version"], ["trian"], ["stylize", "--help"], ["stylize"]])
def test_without_hydra_either(words: list[str]) -> None:
    assert not imported(*words)[1] & {"hydra", "omegaconf", "numpy", "rich"}
