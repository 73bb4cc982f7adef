"""Values of a configuration against the annotations of constructors, and what constructors raise."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.engine.settings import check_schedule
from animegen.errors import AnimegenError
from animegen.media.video.encoding import Encoding, check_encoding


@pytest.mark.parametrize(
    ("word", "group", "message"),
    [
        ("model.clip=abc", "model", "model.clip=abc is not valid: use a number, or key: value pairs"),
        ("model.accumulate=1.5", "model", "model.accumulate=1.5 is not valid: use an integer."),
        ("model.generator.channels=nan", "model", "model.generator.channels=nan is not valid: use an integer."),
        ("model.generator.channels=1e30", "model", "model.generator.channels=1e[+]30 is not valid"),
        ("model.generator.channels=-3", "model", "model.generator"),
        ("model.optimizers.generator.lr=abc", "model", "model.optimizers.generator.lr=abc is not valid: use a number."),
        ("data.batch_size=abc", "data", "data.batch_size=abc is not valid: use an integer."),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_key(word: str, group: str, message: str) -> None:
    config = compose_config("train", ["experiment=toy/quickstart", "size=tiny", word])
    with pytest.raises(AnimegenError, match=message):
        build(config[group], group)


@pytest.mark.parametrize("group", ["features", "benchmark", "precision", "data", "model", "callbacks", "trainer"])
def test_groups_cannot_be_null(group: str) -> None:
    with pytest.raises(AnimegenError, match=f"{group}=null is not valid, since {group} is a group of options"):
        compose_config("train", [f"{group}=null"])


@pytest.mark.parametrize(
    "word",
    ["seed=99999999999999999999", "seed=-1", "seed=null", "threads=-1", "threads=100000", "threads=0", "val_every=1.5"],
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
