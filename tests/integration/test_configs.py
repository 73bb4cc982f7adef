"""Every experiment composes, trains at size=tiny, resumes exactly, and its checkpoint stands alone.

The lists come from the configuration, so a new family is tested from the moment it exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from animegen import load_model
from animegen.cli import train as train_verb
from animegen.config.compose import compose_choices, compose_config
from animegen.config.fitting import fits
from animegen.config.groups import LOADER
from animegen.config.instantiate import build
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.module import AnimeModule
from animegen.tasks.protocols import Stylizer
from tests.support import assert_same_state, options_of, run_verb, tiny, tiny_config, train

EXPERIMENTS = options_of("experiment")
ABLATIONS = options_of("ablation")
CONF = Path(__file__).parents[2] / "conf"


@lru_cache
def kind(experiment: str) -> tuple[str, str]:
    """Return what an experiment trains, its model and its data, by its defaults and those of experiments among them.

    To compose all experiments only to find that takes each process of the tests a quarter of a minute.
    """
    usual = {group: name for entry in _defaults("train") if isinstance(entry, dict) for group, name in entry.items()}
    found = usual["model"], usual["data"]
    for entry in _defaults(f"experiment/{experiment}"):
        if isinstance(entry, dict):
            found = entry.get("override /model", found[0]), entry.get("override /data", found[1])
        elif entry != "_self_" and not entry.startswith("/"):
            found = kind(entry)
    return found


def _defaults(name: str) -> list[Any]:
    return yaml.load((CONF / f"{name}.yaml").read_text(), Loader=LOADER)["defaults"]


#: Experiments whose model has the classes of another one's at other sizes: the long tests train them, too.
OTHER_SIZES = {"ganime/256x512": "ganime/kny64", "ganime/f16": "ganime/kny64"}


def each_model_and_data_once() -> Iterator[Any]:
    """Yield the experiments; those whose model an earlier one has, and whose data one has, are among the long tests.

    So are those whose model differs from another one's in sizes alone.
    """
    known: set[str] = set()
    for experiment in EXPERIMENTS:
        new = {f"{group}={name}" for group, name in zip(("model", "data"), kind(experiment), strict=True)} - known
        known |= new
        yield pytest.param(experiment, marks=() if new and experiment not in OTHER_SIZES else pytest.mark.slow)


def of_no_experiment(group: str) -> list[str]:
    """Return the options of ``model`` or ``data`` that no experiment has: those of experiments are composed there."""
    known = {kind(experiment)[("model", "data").index(group)] for experiment in EXPERIMENTS}
    return [option for option in options_of(group) if option not in known]


@pytest.mark.parametrize("model", of_no_experiment("model"))
def test_every_other_model_composes(model: str) -> None:
    config = compose_config("train", [f"model={model}"])
    assert config.model._target_.startswith("animegen.models.")


def test_every_option_composes() -> None:
    groups = ("trainer", "precision", "features", "logger", "callbacks", "debug", "size")
    options = {group: options_of(group) for group in groups} | {"data": of_no_experiment("data")}
    assert all(options.values())
    for chosen in zip_longest(*options.values()):  # one of each group at once, since a composition takes its time
        words = [f"{group}={option}" for group, option in zip(options, chosen, strict=True) if option]
        _, choices = compose_choices("train", words, complete=False)
        assert {f"{group}={choices[group]}" for group in options} >= set(words)


def classes(node: Any) -> set[str]:
    """Return every ``_target_`` of a configuration."""
    return set(re.findall(r"_target_: (\S+)", OmegaConf.to_yaml(node, resolve=True)))


@pytest.mark.parametrize("experiment", [case.values[0] for case in each_model_and_data_once() if case.marks])
def test_every_experiment_that_only_long_tests_train_builds(experiment: str) -> None:
    config = tiny_config(f"experiment={experiment}")
    assert isinstance(build(config.model, "model"), AnimeModule)
    if experiment in OTHER_SIZES:
        assert classes(config.model) <= classes(tiny_config(f"experiment={OTHER_SIZES[experiment]}").model)


@pytest.mark.parametrize("experiment", each_model_and_data_once())
def test_every_experiment_trains_resumes_to_the_bit_and_stands_alone(experiment: str, tmp_path: Path) -> None:
    options = ("precision=fp32", "train_steps=3", "callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=-1")
    whole = train(f"experiment={experiment}", *options, output=tmp_path / "whole")
    # Previews change nothing: tests/integration/test_resume.py.
    words = (f"resume={whole}/checkpoints/step-0000002.ckpt", "callbacks.previews=null")
    resumed = train(*words, output=tmp_path / "resumed")
    content = read_checkpoint(resumed)
    assert_same_state(read_checkpoint(whole), content)
    assert content["animegen"]["train_step"] == 3
    assert kind(experiment) == tuple(content["animegen"]["choices"][group] for group in ("model", "data"))
    assert content["animegen"]["config"]["seed"] == 0
    assert not any(key.startswith("features.") for key in content["state_dict"])
    model = load_model(resumed, device="cpu", weights="raw")  # by the rules for files from elsewhere
    assert model.train_step == 3
    loaded = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    assert loaded
    assert all(torch.equal(value, content["state_dict"][key]) for key, value in loaded.items())
    if isinstance(model, Stylizer):
        pictures = torch.rand(1, 3, 37, 50) * 2 - 1
        output, _ = model.stylize(pictures, None)
        assert output.shape == pictures.shape
        assert output.abs().max() <= 1


def changed_by(ablation: str) -> list[str]:
    """Return the words of an experiment of its family that the ablation fits: the study, or else the quickstart."""
    family = ablation.split("/")[0]
    mine = [e for e in EXPERIMENTS if e.startswith(f"{family}/")]
    mine.sort(key=lambda e: (not e.endswith("/study"), not e.endswith("/quickstart"), e))
    experiment = next((e for e in mine if fits(ablation, e)), None)
    assert experiment, f"ablation={ablation} changes none of {mine}"
    return [f"experiment={experiment}", f"ablation={ablation}"]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_changes_an_experiment_of_its_family_and_builds(ablation: str) -> None:
    config = tiny_config(*changed_by(ablation))
    assert [name for name, on in config.ablations.items() if on], "an ablation names itself in 'ablations'"
    assert isinstance(build(config.model, "model"), AnimeModule)


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_trains(ablation: str, tmp_path: Path) -> None:
    words = tiny(*changed_by(ablation), "train_steps=2", folders=tmp_path / "user")
    assert run_verb(train_verb.main, *words, f"output={tmp_path / 'run'}") == 0
    assert read_checkpoint(tmp_path / "run")["animegen"]["train_step"] == 2
