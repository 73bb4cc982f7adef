"""Odd values of every number and random configurations through every command: success or one sentence, no traceback."""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from animegen.cli import evaluate as eval_verb
from animegen.cli import train as train_verb
from animegen.config.compose import check_complete, compose_config
from animegen.config.instantiate import build
from animegen.config.options import Options, keys_of
from animegen.config.ranges import check_numbers
from animegen.config.schema import EvalSchema, TrainSchema
from animegen.curation.options import PrepareOptions
from animegen.engine import AnimeModule
from animegen.engine.callbacks import StopAfter
from animegen.errors import AnimegenError
from animegen.inference.options import GenerateOptions, InterpolateOptions, StylizeOptions
from animegen.launch.trainer import fit
from animegen.media.images import write_image
from animegen.reports.options import CompareOptions
from tests.robustness.support import assert_calm, run
from tests.support import options_of, run_verb, tiny

#: What every number of every configuration is set to.
NUMBERS = (-1, 0, 1.5, math.nan, 1e30, "word")
#: Values that `make test` tries of those that are in range.
SAMPLE = 8
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
def places(toy: Path, between: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("values")
    for name in ("a", "b"):
        write_image(folder / f"{name}.png", torch.full((3, 16, 16), 90, dtype=torch.uint8))
    return {"folder": folder, "toy": toy, "between": between}


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


class Trial(NamedTuple):
    """A value of a key that is in range. Where the same class takes it in another setup, one trial is enough."""

    key: str
    value: Any
    taker: str


def number_keys(node: Any, written: Any, key: str = "", taker: str = "") -> Iterator[tuple[str, str]]:
    """Yield the dotted keys of all numbers of a configuration, and what takes each: class and setting.

    Args:
        node: the resolved configuration.
        written: the same with interpolations.
        key: the dotted key of the node.
        taker: what takes the node.
    """
    if not isinstance(written, dict | list):  # a branch that is that of another key
        return
    taker = node.get("_target_", taker) if isinstance(node, dict) else taker
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        path = f"{key}.{name}" if key else str(name)
        term = taker == "animegen.engine.Objective"
        setting = taker if isinstance(node, list) or term else f"{taker}.{name}"
        if isinstance(value, dict | list):
            yield from number_keys(value, written[name], path, "term" if term else setting)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield path, setting


def check_range(values: Any, key: str, value: Any, schema: type[Options]) -> None:
    """Check a value of a key as composing the configuration does, in much less time."""
    group, *path = key.split(".")
    if not path:
        next(each for each in keys_of(schema) if each.name == group).check(value)
        return
    node = place = copy.deepcopy(values[group])
    for name in path[:-1]:
        place = place[int(name)] if isinstance(place, list) else place[name]
    place[int(path[-1]) if isinstance(place, list) else path[-1]] = value
    check_numbers(node, group)


def in_range(config: DictConfig, schema: type[Options]) -> tuple[int, list[Trial]]:
    """Return how many values of the numbers of a configuration are refused by their ranges, and the others."""
    written, resolved = (OmegaConf.to_container(config, resolve=how) for how in (False, True))
    refused, others = 0, []
    for key, taker in number_keys(resolved, written):
        for value in NUMBERS:
            sentence = ""
            try:
                check_range(written, key, value, schema)
            except AnimegenError as error:
                sentence = str(error)
            if sentence:
                assert sentence.startswith(f"{key}={value} is not valid: use "), sentence
                refused += 1
            else:
                others.append(Trial(key, value, taker))
    return refused, others


@lru_cache
def experiment_trials(experiment: str, folder: Path) -> tuple[int, list[Trial]]:
    return in_range(compose_config("train", tiny(f"experiment={experiment}", folders=folder)), TrainSchema)


def own_trials(experiment: str, folder: Path) -> list[Trial]:
    """Return the trials of an experiment that no experiment before it has."""
    order = sorted(options_of("experiment"), key=lambda name: (name != "toy/quickstart", name))
    before = {
        (trial.taker, str(trial.value))
        for name in order[: order.index(experiment)]
        for trial in experiment_trials(name, folder)[1]
    }
    own = {(trial.taker, str(trial.value)): trial for trial in experiment_trials(experiment, folder)[1]}
    return [trial for key, trial in own.items() if key not in before]


def attempt(experiment: str, trial: Trial, user: Path, output: Path) -> None:
    """Train one step with a value: it may be refused in a sentence, and anything else fails the test."""
    words = tiny(f"experiment={experiment}", "train_steps=1", folders=user)
    if trial.key.split(".")[0] not in ("model", "data", "size"):
        code = run_verb(train_verb.main, *words, f"{trial.key}={trial.value}", f"output={output}", "overwrite=true")
        assert code in (0, 2), trial
        return
    config = compose_config("train", words)
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, trial.key, trial.value)
    with contextlib.suppress(AnimegenError):
        check_complete(config)
        data = build(config.data, "data", pl.LightningDataModule)
        model = build(config.model, "model", AnimeModule)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=-1,
            callbacks=[StopAfter(1)],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
        )
        fit(trainer, model, data, None, [f"{trial.key}={trial.value}"])


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("user")


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=pytest.mark.slow) for name in options_of("experiment")]
)
def test_every_number_of_an_experiment(
    experiment: str, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused, others = experiment_trials(experiment, user)
    own = own_trials(experiment, user)
    for trial in own:
        attempt(experiment, trial, user, tmp_path / "run")
    with capsys.disabled():
        print(f"\n{experiment}: {refused} values out of range, {len(others)} in range, {len(own)} of them tried here")


def test_some_numbers(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused, others = experiment_trials("toy/quickstart", user)
    assert refused > 4 * len(others)
    for trial in random.Random(0).sample(own_trials("toy/quickstart", user), SAMPLE):
        attempt("toy/quickstart", trial, user, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(("benchmark", "model"), [("clips", "toy"), ("generation", "between")])
def test_every_number_of_a_benchmark(
    benchmark: str, model: str, places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [f"checkpoint={places[model]}", "device=cpu", "features=none", f"benchmark={benchmark}", "samples=1"]
    small = ("clips=1", "frames=8", "size=32", "intervals=[1]", "drift_frames=8", "train_scenes=1")
    words = given + [f"benchmark.{word}" for word in small if benchmark == "clips"]
    for trial in in_range(compose_config("eval", words), EvalSchema)[1]:
        assert run_verb(eval_verb.main, *words, f"{trial.key}={trial.value}") in (0, 2), trial
