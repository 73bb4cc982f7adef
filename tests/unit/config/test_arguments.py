"""Values of a configuration against the annotations of constructors, and what constructors raise."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from animegen.config.compose import compose_config
from animegen.config.ranges import check_numbers, numbers
from animegen.engine.settings import check_schedule
from animegen.errors import AnimegenError
from animegen.media.video.encoding import Encoding, check_encoding
from tests.support import options_of


@pytest.mark.parametrize(
    ("word", "allowed"),
    [
        ("model.clip=abc", "a number above 0 and at most 1000000"),
        ("model.accumulate=1.5", "an integer from 1 to 1000000000"),
        ("model.accumulate=2.0", "an integer from 1 to 1000000000"),
        ("model.generator.channels=nan", "an integer from 1 to 65536"),
        ("model.generator.channels=1e30", "an integer from 1 to 65536"),
        ("model.generator.channels=-3", "an integer from 1 to 65536"),
        ("model.optimizers.generator.lr=abc", "a number from 0 to 1000000"),
        ("+model.optimizers.generator.betas=[0.5,1]", "a number from 0 to below 1"),
        ("model.objectives.generator.l1.weight=nan", "a number from 0 to 1000000"),
        ("model.objectives.generator.l1.weight=-1", "a number from 0 to 1000000"),
        ("model.ema={networks:[generator],decay:1}", "a number from 0 to below 1"),
        ("data.batch_size=abc", "an integer from 1 to 1000000000"),
        ("data.image_size=abc", "an integer from 1 to 65536"),
        ("size.image_size=-1", "an integer from 1 to 65536"),
        ("callbacks.checkpoints.keep=-2", "an integer from -1 to 1000000000"),
    ],
)
def test_a_value_out_of_range_is_one_sentence_that_names_the_key(word: str, allowed: str) -> None:
    with pytest.raises(AnimegenError, match=rf"^[\w.]+=\S+ is not valid: use {allowed}\.") as caught:
        compose_config("train", ["experiment=toy/quickstart", "size=tiny", word])
    assert str(caught.value).split("=")[0].startswith(word.split("=")[0].lstrip("+"))


def test_values_in_the_users_own_classes_are_not_checked() -> None:
    node = {"_target_": "mine.Net", "width": -1, "loss": {"_target_": "animegen.losses.GANLoss", "real_label": "x"}}
    with pytest.raises(AnimegenError, match=r"^model\.loss\.real_label=x is not valid"):
        check_numbers(node, "model")
    del node["loss"]
    check_numbers(node, "model")


@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_every_number_has_a_range(experiment: str) -> None:
    config = compose_config("train", [f"experiment={experiment}", "size=tiny"], complete=False)
    values = OmegaConf.to_container(config, resolve=False)
    groups = {name: values[name] for name in ("model", "data", "callbacks", "logger", "benchmark", "features", "size")}
    declared = {key for name, node in groups.items() for key, *_ in numbers(node, name)}
    assert set(number_keys(groups)) <= declared


def number_keys(node: Any, prefix: str = "") -> Iterator[str]:
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list):
            yield from number_keys(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}"


@pytest.mark.parametrize("group", ["features", "benchmark", "precision", "data", "model", "callbacks", "trainer"])
def test_groups_cannot_be_null(group: str) -> None:
    with pytest.raises(AnimegenError, match=f"{group}=null is not valid, since {group} is a group of options"):
        compose_config("train", [f"{group}=null"])


@pytest.mark.parametrize(
    "word",
    [
        *("seed=99999999999999999999", "seed=-1", "seed=null", "threads=-1", "threads=100000", "threads=0"),
        *("val_every=1.5", "val_every=0", "train_steps=0"),
    ],
)
def test_top_level_values_have_ranges(word: str) -> None:
    with pytest.raises(AnimegenError, match=f"{word} is not valid: use an integer from"):
        compose_config("train", [word])


@pytest.mark.parametrize(
    "schedule",
    [
        torch.optim.lr_scheduler.ReduceLROnPlateau,
        partial(torch.optim.lr_scheduler.StepLR, step_size=0),
    ],
)
def test_schedules_that_cannot_be_stepped(schedule: object) -> None:
    with pytest.raises(AnimegenError, match=r"model.schedulers.generator cannot be stepped once per train step"):
        check_schedule(schedule, "model.schedulers.generator")  # type: ignore[arg-type]


def test_a_schedule_that_can() -> None:
    check_schedule(partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=3), "model.schedulers.x")


def test_a_codec_of_sound(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AnimegenError, match="codec=aac encodes no video"):
        check_encoding(Encoding("aac"), tmp_path / "x.mp4")
