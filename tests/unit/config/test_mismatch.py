"""Which value of plain data does not fit a type, and what it should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
from torch import nn

from animegen.config.mismatch import check_settings, mismatch, settings_of
from animegen.config.trust import locate

NODE = {"_target_": "animegen.models.toy.Toy"}


class Colour(Enum):
    red = "r"


class Part(TypedDict, total=False):
    number: int


class Whole(TypedDict):
    part: Part
    names: list[str]


@dataclass
class Settings:
    steps: int = 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, int),
        (3, float),
        (None, float | None),
        ("red", Colour),
        ("a", Literal["a", "b"]),
        ([1, 2], tuple[int, ...]),
        ([1, "a"], tuple[int, str]),
        ([1, 2.5], Sequence[float]),
        ({"a": [1]}, Mapping[str, list[int]]),
        ({"part": {"number": 1, "unknown": ()}, "names": []}, Whole),
        ({"unknown": 1}, Settings),
        ("here", Path),
        (NODE, nn.Module),
        (NODE, Sequence[int]),
        (object(), Any),
    ],
)
def test_what_fits(value: Any, expected: Any) -> None:
    assert mismatch(value, expected, "it") is None


@pytest.mark.parametrize(
    ("value", "expected", "said"),
    [
        (True, int, "it is true, not an integer"),
        (3.0, int, "it is 3.0, not an integer"),
        ("3", float | None, "it is '3', not a number or null"),
        (None, str, "it is null, not a text"),
        (1, bool, "it is 1, not true or false"),
        ("blue", Colour, "it is 'blue', not one of red"),
        ("c", Literal["a", "b"], "it is 'c', not a or b"),
        ("ab", Sequence[str], "it is 'ab', not a list"),
        ([1], tuple[int, str], "it has 1 elements, not 2"),
        ({"a": ["x"]}, dict[str, list[int]] | None, "it.a.0 is 'x', not an integer"),
        ({"names": []}, Whole, "it lacks 'part'"),
        ({"part": {"number": None}, "names": []}, Whole, "it.part.number is null, not an integer"),
        ({"steps": "many"}, Settings, "it.steps is 'many', not an integer"),
        (4, nn.Module, "it is 4, not Module"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, expected: Any, said: str) -> None:
    assert mismatch(value, expected, "it") == said


def test_settings_are_those_of_a_class_and_of_its_bases() -> None:
    known, others = settings_of(locate("animegen.models.toy.Toy"))
    assert others
    assert known["accumulate"] is int
    assert not settings_of(locate("animegen.models.toy.networks.ToyGenerator"))[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accumulate": 1.5}, "model.accumulate is 1.5, not an integer"),
        ({"generator": 3}, "model.generator is 3, not Module"),
        ({"generator": {"_target_": "animegen.models.toy.networks.ToyGenerator", "channels": "a"}}, "channels is 'a'"),
        ({"generator": {"_target_": "animegen.models.toy.networks.ToyGenerator", "size": 1}}, "has no setting 'size'"),
    ],
)
def test_settings_are_compared_with_signatures(change: dict[str, Any], said: str) -> None:
    generator = {"_target_": "animegen.models.toy.networks.ToyGenerator", "channels": 4}
    node = {"_target_": "animegen.models.toy.Toy", "generator": generator}
    assert check_settings(node, locate, "model") is None
    assert said in str(check_settings({**node, **change}, locate, "model"))
