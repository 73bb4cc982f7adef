"""Data from files are plain, of limited size, or refused in one sentence."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from animegen.config.plain import DEPTH, VALUES, plain_data, read_json
from animegen.errors import AnimegenError


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> Any:
    value: dict[str, Any] = {}
    value["a"] = [value]
    return value


def bomb() -> Any:
    value: Any = [0] * 10
    for _ in range(30):
        value = [value] * 10
    return value


def test_plain_data_are_copied() -> None:
    shared = {"x": [1, -2.5, True, None, "text"]}
    value = {"b": shared, "a": [shared, {}], "": []}
    copy = plain_data(value, "it")
    assert copy == value
    assert list(copy) == ["b", "a", ""]
    assert copy["b"] is not shared
    assert copy["b"] is not copy["a"][0]
    assert plain_data(nested(DEPTH), "it") == nested(DEPTH)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((1,), "a value of the type tuple"),
        ({"a": [{1}]}, "the type set at 'a.0'"),
        (OrderedDict(a=1), "the type OrderedDict"),
        (type("Text", (str,), {})("a"), "the type Text"),
        ({"a": {1: 2}}, "the key '1', which is not a text at 'a'"),
        ({"a": "${oc.env:HOME}"}, r"'\$\{oc.env:HOME\}', an interpolation at 'a'"),
        ({"${x}": 1}, "an interpolation"),
        (2**64, "more than 64 bits"),
        (b"bytes", "the type bytes"),
        (1j, "the type complex"),
        (nested(DEPTH + 1), f"more than {DEPTH} levels"),
        (cycle(), f"more than {DEPTH} levels"),
        (bomb(), f"more than {VALUES} values"),
    ],
)
def test_anything_else_is_refused(value: Any, words: str) -> None:
    with pytest.raises(AnimegenError, match=words):
        plain_data(value, "The file")


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert plain_data({"\x1b[2J": "a\tb\n\x9b31m"}, "it") == {"\ufffd[2J": "a\tb\n\ufffd31m"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "nested too deeply|more than"),
        ("1" * 5000, "no JSON"),
        ("\ufeff{}", "no JSON"),
        ("[" * 200 + "]" * 200, "more than 100 levels"),
    ],
)
def test_damaged_json_is_reported(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(AnimegenError, match=rf"a\.json.*({words})"):
        read_json(path, "a record", "restore it")


def test_json_is_read(tmp_path: Path) -> None:
    value = {"a": [1, None, "ü"], "b": {"c": 1e-3}}
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json", "a record", "restore it") == value
    with pytest.raises(AnimegenError, match="does not exist"):
        read_json(tmp_path / "b.json", "a record", "restore it")
