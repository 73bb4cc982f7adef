"""Which libraries a command imports: none for help, lists and mistakes, PyTorch alone to apply a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from animegen.cli import stylize
from animegen.cli.main import COMMANDS
from animegen.errors import AnimegenError
from animegen.speed import startup
from animegen.speed.startup import STYLIZE, measure, write_example
from tests.support import run_verb, untrained

HEAVY = {"torch", "torchvision", "torchmetrics", "pytorch_lightning", "matplotlib", "cv2", "scipy", "av", "tensorboard"}
#: What help and the first mistakes do without, too.
LIGHT = {"hydra", "omegaconf", "numpy", "rich"}
#: What training, scores, feature networks, codebooks, plots and exports need.
NOT_APPLIED = {
    *("pytorch_lightning", "lightning_fabric", "torchmetrics", "torchvision", "scipy", "lpips", "tensorboard"),
    *("matplotlib", "vector_quantize_pytorch", "sympy", "torch._dynamo", "torch._inductor", "animegen.benchmarks"),
}
#: Family of a model, and the command that applies it.
APPLIED = (
    ("animegan", "stylize"),
    ("temporal", "stylize"),
    ("fewshot", "stylize"),
    ("interpolation", "interpolate"),
    ("interpolation", "generate"),
)
SCRIPT = """
import contextlib, io, json, sys
from animegen.cli.main import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = main(words)
    print(json.dumps([code, sorted(sys.modules)]))
"""


def imported(*commands: list[str]) -> list[tuple[int, set[str]]]:
    """Run commands one after the other in a process of their own.

    Returns:
        The exit code of each command, and the modules that the process has imported until its end.
    """
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(commands)], capture_output=True, text=True, cwd=root, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return [(code, set(modules)) for code, modules in map(json.loads, lines)]


@pytest.mark.parametrize(
    ("commands", "more"),
    [
        (
            {
                **{"": 0, "--help": 0, "--version": 0, "stylize --help": 0},
                **{"trian": 2, "stylize": 2},
            },
            LIGHT,
        ),
        (
            {
                **{f"{name} --help": 0 for name in COMMANDS if name != "stylize"},
                "stylize checkpoint=a input=b output=c strength=2": 2,
                **{"generate frames=1": 2, "prepare lenght=3": 2, "compare metrics=": 2},
                **{"list models": 0, "list": 0},
            },
            set(),
        ),
    ],
    ids=["help and first mistakes", "all help, lists and mistakes"],
)
def test_without_heavy_libraries(commands: dict[str, int], more: set[str]) -> None:
    ended = imported(*(line.split() for line in commands))
    assert dict(zip(commands, [code for code, _ in ended], strict=True)) == commands
    loaded = {
        line: found for line, (_, modules) in zip(commands, ended, strict=True) if (found := modules & (HEAVY | more))
    }
    assert loaded == {}


def test_applying_a_model_imports_what_it_needs(tmp_path: Path) -> None:
    a, b, target = (str(tmp_path / name) for name in ("a.png", "b.png", "out.gif"))
    for path, level in ((a, 80), (b, 90)):
        Image.new("RGB", (32, 32), (level, 120, 200)).save(path)
    words = {
        "stylize": [f"input={a}", f"output={tmp_path / 'out.png'}"],
        "interpolate": [f"input=[{a},{b}]", f"output={target}"],
        "generate": [f"first={a}", f"last={b}", "frames=4", f"output={target}"],
    }
    commands = []
    for number, (family, verb) in enumerate(APPLIED):
        checkpoint = tmp_path / f"{number}.ckpt"
        untrained(f"{family}/quickstart", checkpoint)
        commands.append([verb, f"checkpoint={checkpoint}", "device=cpu", "threads=1", "overwrite=true", *words[verb]])
    ended = imported(*commands)
    assert [code for code, _ in ended] == [0] * len(APPLIED)
    assert "torch" in ended[0][1]
    loaded = {
        what: found for what, (_, modules) in zip(APPLIED, ended, strict=True) if (found := modules & NOT_APPLIED)
    }
    assert loaded == {}


def test_the_measured_command_stylizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_example(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run_verb(stylize.main, *STYLIZE.split()[1:], "device=cpu", "threads=1") == 0
    assert Image.open("anime.png").size == (256, 256)


def test_the_report_on_the_machine_imports_no_training() -> None:
    ((code, modules),) = imported(["doctor"])
    assert code == 0
    assert "torch" in modules
    assert not modules & {"pytorch_lightning", "torchmetrics", "torchvision", "torch._dynamo"}


def test_a_process_is_measured_without_the_memory_of_the_one_that_starts_it() -> None:
    held = bytearray(300 * 2**20)
    held[:: 2**12] = b"x" * (len(held) // 2**12)  # every page
    cost = measure(["-c", "import sys; sys.exit(3)"])
    assert len(held) / 2**20 > 3 * cost.memory > 0
    assert cost.seconds > 0
    assert cost.code == 3


def test_a_process_that_cannot_measure_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_MEASURE", "raise OSError('no more processes')")
    with pytest.raises(
        AnimegenError,
        match=r"^Python processes cannot be measured here \(OSError: no more processes\): close other programs",
    ):
        measure(["-c", "pass"])
