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
SCRIPT = """
import contextlib, io, json, sys
from animegen.cli.main import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    code = main(json.loads(sys.argv[1]))
print(json.dumps([code, sorted(sys.modules)]))
"""


def imported(*words: str) -> tuple[int, set[str]]:
    """Run a command in a process of its own; return its exit code and the modules that it has imported."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(words)], capture_output=True, text=True, cwd=root, timeout=120
    )
    assert done.returncode == 0, done.stderr
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, set(modules)


@pytest.mark.parametrize(
    ("words", "code", "more"),
    [
        *[(words, 0, LIGHT) for words in ([], ["--help"], ["--version"], ["stylize", "--help"])],
        (["trian"], 2, LIGHT),
        (["stylize"], 2, LIGHT),
        *[([name, "--help"], 0, set()) for name in COMMANDS if name != "stylize"],
        (["stylize", "checkpoint=a", "input=b", "output=c", "strength=2"], 2, set()),
        (["generate", "frames=1"], 2, set()),
        (["prepare", "lenght=3"], 2, set()),
        (["compare", "metrics="], 2, set()),
        (["list", "models"], 0, set()),
        (["list"], 0, set()),
    ],
)
def test_without_heavy_libraries(words: list[str], code: int, more: set[str]) -> None:
    ended, modules = imported(*words)
    assert ended == code
    assert not modules & (HEAVY | more)


@pytest.mark.parametrize(
    ("experiment", "verb"),
    [
        ("animegan/quickstart", "stylize"),
        ("temporal/quickstart", "stylize"),
        ("fewshot/quickstart", "stylize"),
        ("interpolation/quickstart", "interpolate"),
        ("interpolation/quickstart", "generate"),
    ],
)
def test_applying_a_model_imports_what_it_needs(experiment: str, verb: str, tmp_path: Path) -> None:
    a, b, target = (str(tmp_path / name) for name in ("a.png", "b.png", "out.gif"))
    for path, level in ((a, 80), (b, 90)):
        Image.new("RGB", (32, 32), (level, 120, 200)).save(path)
    untrained(experiment, tmp_path / "tiny.ckpt")
    words = {
        "stylize": [f"input={a}", f"output={tmp_path / 'out.png'}"],
        "interpolate": [f"input=[{a},{b}]", f"output={target}"],
        "generate": [f"first={a}", f"last={b}", "frames=4", f"output={target}"],
    }
    code, modules = imported(verb, f"checkpoint={tmp_path / 'tiny.ckpt'}", "device=cpu", "threads=1", *words[verb])
    assert code == 0
    assert "torch" in modules
    assert not modules & NOT_APPLIED


def test_the_measured_command_stylizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_example(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert run_verb(stylize.main, *STYLIZE.split()[1:], "device=cpu", "threads=1") == 0
    assert Image.open("anime.png").size == (256, 256)


def test_the_report_on_the_machine_imports_no_training() -> None:
    code, modules = imported("doctor")
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
    with pytest.raises(AnimegenError, match=r"cannot be measured here: (.|\n)*OSError: no more processes"):
        measure(["-c", "pass"])
