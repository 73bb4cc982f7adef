"""The keys of a command: read from words, checked, and explained."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Literal, get_type_hints

import pytest

from animegen.config.options import Options, help_text, keys_of, option, read
from animegen.config.values import Range, accepts, describe
from animegen.curation.options import PrepareOptions
from animegen.errors import AnimegenError
from animegen.inference.options import ExportOptions, GenerateOptions, InterpolateOptions, StylizeOptions
from animegen.reports.options import CompareOptions
from animegen.web.options import WebOptions


class Colour(Enum):
    red = "red"
    green = "green"


@dataclass
class Example(Options):
    """Do something with files.

    A note about ``keys``.
    """

    command: ClassVar[str] = "example"
    examples: ClassVar[Sequence[str]] = ("input=a.png 'name=a b'",)

    input: str = option(help="a file", path=True)
    name: str | None = option(None, "any text")
    count: int = option(3, "how many", minimum=1, maximum=9)
    share: float = option(0.5, "how much", minimum=0, maximum=1)
    rate: Fraction | None = option(None, "how fast", above=0, maximum=1000)
    tile: int | Literal["auto"] = option("auto", "largest side", minimum=64, also=(0,))
    colour: Colour = option(Colour.red, "which")
    keep: bool = option(True, "whether to keep it")
    files: list[str] | None = option(None, "more files", path=True)
    sides: list[int] = option([1, 2], "sizes", minimum=1)
    imported: str | None = option(None, "a key that Python reserves", name="import", section="Others")
    more: list[str] = option([], "words without a key", positional=True)


def example(*words: str) -> Example:
    return read(Example, ["input=a.png", *words])


@pytest.mark.parametrize(
    ("word", "attribute", "value"),
    [
        ("count=9", "count", 9),
        ("share=1", "share", 1.0),
        ("share=1e-3", "share", 0.001),
        ("rate=24000/1001", "rate", Fraction(24000, 1001)),
        ("rate=2.5", "rate", Fraction(5, 2)),
        ("rate=null", "rate", None),
        ("tile=auto", "tile", "auto"),
        ("tile=0", "tile", 0),
        ("colour=green", "colour", Colour.green),
        ("keep=False", "keep", False),
        ("files=[a.png,  b c.png]", "files", ["a.png", "b c.png"]),
        ("files=one.png", "files", ["one.png"]),
        ("files=null", "files", None),
        ("sides=[3,4,5]", "sides", [3, 4, 5]),
        ("sides=7", "sides", [7]),
        ("import=x", "imported", "x"),
        ("name=null", "name", None),
    ],
)
def test_values(word: str, attribute: str, value: object) -> None:
    assert getattr(example(word), attribute) == value


@pytest.mark.parametrize(
    "name",
    [
        "My film (1), final=cut.mkv",
        'it\'s "quoted".png',
        "'quoted'",
        "[x]=y {z} \\ ${HOME} .png",
        "-leading-dash",
        "--help=1",
        "ねこ é.png",
        " spaces ",
        "a\nb",
        "*?",
        "folder/",
        os.fsdecode(b"not-utf-8-\xff.png"),
    ],
)
def test_paths_are_taken_literally(name: str) -> None:
    assert example(f"input={name}").input == name
    assert example(f"files={name}", "files=b,c").files == [name, "b,c"]


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert example("input=~/a/").input == f"{tmp_path}/a/"
    assert example("name=~").name == "~"  # not a path


def test_the_last_of_several_values_counts() -> None:
    assert example("count=1", "count=2").count == 2


def test_words_without_a_key() -> None:
    assert example("a", "./b=c", "d").more == ["a", "./b=c", "d"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cuont=1"], "There is no key 'cuont'. Did you mean 'count'?"),
        (["count="], "count= has no value"),
        (["input="], "input= has no value"),
        (["count=0"], "count=0 is not valid: use an integer from 1 to 9."),
        (["count=1.5"], "count=1.5 is not valid: use an integer from 1 to 9."),
        (["count=1e30"], "count=1e30 is not valid"),
        (["count=null"], "count=null is not valid"),
        (["count=" + "9" * 5000], "is not valid: use an integer"),
        (["share=nan"], "share=nan is not valid: use a number from 0 to 1."),
        (["share=inf"], "share=inf is not valid"),
        (["share=abc"], "share=abc is not valid"),
        (["rate=0"], "rate=0 is not valid: use a number or a fraction such as 24000/1001, above 0 and at most 1000"),
        (["rate=1/0"], "rate=1/0 is not valid"),
        (["rate=1e999999999"], "rate=1e999999999 is not valid"),
        (["tile=63"], "tile=63 is not valid: use an integer of at least 64 or 0, or auto."),
        (["colour=gren"], "colour=gren is not valid: use one of red, green. Did you mean 'green'?"),
        (["keep=maybe"], "keep=maybe is not valid: use true or false."),
        (["files=[a,,b]"], "files=[a,,b] has an empty element"),
        (["files=[]"], "files=[] has an empty element"),
        (["sides=[1,x]"], "sides=[1,x] is not valid: use a list [a,b] in which each is an integer of at least 1."),
        (["--count=3"], "There is no option '--count=3'. Did you mean 'count=3'?"),
        (["--fast"], "There is no option '--fast': animegen example --help lists the keys"),
        ([f"input={'x' * 300}"], "its longest part has 300 bytes"),
    ],
)
def test_mistakes(words: list[str], message: str) -> None:
    with pytest.raises(AnimegenError, match=re.escape(message)):
        example(*words)


def test_a_missing_key() -> None:
    with pytest.raises(AnimegenError, match=r"Missing on the command line: input=\.\.\."):
        read(Example, ["count=2"])


def test_options_made_in_python_are_checked() -> None:
    assert Example(input="a").count == 3
    with pytest.raises(AnimegenError, match="count=10 is not valid"):
        Example(input="a", count=10)


def test_help_is_generated_and_fits() -> None:
    text = help_text(Example)
    lines = text.splitlines()
    assert lines[0] == "animegen example [<more> ...] input=... [key=value ...]"
    assert lines[2] == "Do something with files."
    assert "  animegen example input=a.png 'name=a b'" in lines
    assert "  count=3               how many [from 1 to 9]" in lines
    assert "  tile=auto             largest side [at least 64 or 0, or auto]" in lines
    assert lines[lines.index("Others:") + 1] == "  import=null           a key that Python reserves"
    assert lines[-1] == "A note about keys."
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("value", "kind", "limits", "good"),
    [
        (True, int, Range(), False),
        (1, float, Range(), True),
        (float("nan"), float, Range(), False),
        (float("inf"), float, Range(), False),
        (0, float, Range(above=0), False),
        (None, int | None, Range(1), True),
        ([1, 2.5], list[float], Range(0, 3), True),
        ([1, 4], list[float], Range(0, 3), False),
        ((1, 2), tuple[int, int], Range(), True),
        ("x", int | Literal["x"], Range(), True),
        ("y", int | Literal["x"], Range(), False),
        (object(), object, Range(), True),
    ],
)
def test_checks_of_values(value: object, kind: object, limits: Range, good: bool) -> None:
    assert accepts(value, kind, limits) is good


def test_descriptions() -> None:
    assert describe(float, Range(maximum=2.5)) == "a number of at most 2.5"
    assert describe(float | None, Range(above=0)) == "a number above 0, or null"
    assert describe(int) == "an integer"


#: Options of a command, and arguments that make them complete.
COMMANDS: dict[type[Options], list[str]] = {
    StylizeOptions: ["checkpoint=a.ckpt", "input=a.png", "output=b.png"],
    InterpolateOptions: ["checkpoint=a.ckpt", "input=a.mp4", "output=b.mp4"],
    GenerateOptions: ["checkpoint=a.ckpt", "keys=[a.png,b.png]", "output=b.mp4"],
    ExportOptions: ["checkpoint=a.ckpt", "format=onnx", "output=b.onnx"],
    PrepareOptions: ["input=a.mp4", "output=b"],
    CompareOptions: ["runs"],
    WebOptions: [],
}


def numeric_keys() -> list[tuple[type[Options], str]]:
    found = []
    for options in COMMANDS:
        hints = get_type_hints(options)
        found += [
            (options, key.name)
            for key in keys_of(options)
            if re.search("int|float|Fraction", str(hints[key.attribute]))
        ]
    return found


@pytest.mark.parametrize(("options", "key"), numeric_keys())
def test_every_number_of_a_command_is_taken_or_refused_by_name(options: type[Options], key: str) -> None:
    for text in ("-1", "0", "1.5", "nan", "1e30", "word"):
        try:
            value = getattr(read(options, [*COMMANDS[options], f"{key}={text}"]), key)
        except AnimegenError as error:
            assert key in str(error)  # noqa: PT017 - some of the values are valid
        else:
            # A threshold that nothing exceeds is a way to switch a rule off.
            assert text != "nan", f"{key} took {value}"
            assert text != "1e30" or isinstance(value, float), f"{key} took {value}"
