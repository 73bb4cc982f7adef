"""Random configurations, of valid keys and odd values, through every command: success or one sentence, no traceback."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from animegen.config.options import Options, keys_of
from animegen.config.schema import EvalSchema, TrainSchema
from animegen.curation.options import PrepareOptions
from animegen.inference.options import GenerateOptions, InterpolateOptions, StylizeOptions
from animegen.media.images import write_image
from animegen.reports.options import CompareOptions
from tests.robustness.support import assert_calm, run
from tests.support import tiny, train

ODD = (
    "-1",
    "0",
    "1",
    "1.5",
    "nan",
    "inf",
    "1e30",
    "word",
    "null",
    "true",
    "99999999999999999999",
    "[]",
    "[1,2]",
    "[a]",
)
#: Configurations in all, in `make test` and in `make test-all`.
COUNTS = [pytest.param(21), pytest.param(500, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("values")
    for name in ("a", "b"):
        write_image(folder / f"{name}.png", torch.full((3, 16, 16), 90, dtype=torch.uint8))
    return {
        "folder": folder,
        "toy": train("experiment=toy/quickstart", "train_steps=1", output=folder / "toy"),
        "between": train("experiment=interpolation/quickstart", "train_steps=1", output=folder / "between"),
    }


def commands(places: dict[str, Path]) -> dict[str, tuple[str, type[Options], list[str]]]:
    """Return command -> (module, declaration of its keys, words that every configuration has)."""
    folder, toy, between = places["folder"], places["toy"], places["between"]
    small = ["data.scenes=1", "data.test_scenes=1", "data.frames_per_scene=1", "size=tiny", "features=none"]
    pair = [f"first={folder / 'a.png'}", f"last={folder / 'b.png'}", "frames=3"]
    return {
        "stylize": ("stylize", StylizeOptions, [f"checkpoint={toy}", f"input={folder / 'a.png'}", "device=cpu"]),
        "interpolate": (
            *("interpolate", InterpolateOptions),
            [f"checkpoint={between}", f"input=[{folder / 'a.png'},{folder / 'b.png'}]", "device=cpu"],
        ),
        "generate": ("generate", GenerateOptions, [f"checkpoint={between}", *pair, "device=cpu"]),
        "prepare": ("prepare", PrepareOptions, ["toonworld=photo", "shots=[2,2]", "side=32"]),
        "compare": ("compare", CompareOptions, [str(toy)]),
        "eval": ("evaluate", EvalSchema, [f"checkpoint={toy}", "device=cpu", *small]),
        "train": ("train", TrainSchema, [*tiny("experiment=toy/quickstart"), "train_steps=1"]),
    }


@pytest.mark.parametrize("count", COUNTS)
def test_random_configurations(
    count: int, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(count)
    every = commands(places)
    for module, options, base in every.values():
        keys = [key for key in keys_of(options) if not (key.declaration.path or key.declaration.positional)]
        words = []
        for number in range(count // len(every)):
            chosen = [f"{key.name}={draw.choice(ODD)}" for key in draw.sample(keys, draw.randint(1, 2))]
            suffix = ".mp4" if module == "prepare" else ""
            words.append([*base, *chosen, f"output={tmp_path / module / f'{number}{suffix}'}"])
        log = tmp_path / f"{module}.log"
        assert_calm(run(f"animegen.cli.{module}", words, log))
    with capsys.disabled():
        print(f"\n{count // len(every) * len(every)} random configurations: no traceback")
