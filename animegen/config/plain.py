"""Plain data from files: dicts, lists and scalars of limited size, or one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from animegen.errors import AnimegenError
from animegen.files import read_text, regular_file

#: Levels of nesting, number of values and size of a file in bytes: far more than a run of animegen records.
DEPTH, VALUES, BYTES = 100, 1_000_000, 2**26
#: Integers of 64 bits, signed or unsigned, for seeds and counters.
INTEGERS = range(-(2**63), 2**64)

#: Control characters, which terminals interpret, except tab and newline; and surrogates, except those that represent
#: the bytes of a file name.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udc7f\udd00-\udfff]")


def plain_data(value: Any, source: str, interpolations: bool = False) -> Any:
    """Return a copy of loaded data that holds dict, list, str, int, float, bool and None, and nothing else.

    The types must be exactly these: what walks through a configuration does not look into tuples, sets and instances
    of subclasses. The copy is made without recursion. Shared parts are copied wherever they occur, so that data that
    contain themselves exceed the limits. Control characters become U+FFFD.

    Args:
        value: the loaded value.
        source: the file for messages, e.g. ``The checkpoint 'a.ckpt'``.
        interpolations: accept ``${``. OmegaConf would resolve it, also from the environment.

    Raises:
        AnimegenError: for any other type, more than `DEPTH` levels, or more than `VALUES` values.
    """
    top: list[Any] = [None]
    waiting: list[tuple[Any, Any, Any, _Place | None]] = [(value, top, 0, None)]
    count = 1
    while waiting:
        item, parent, slot, place = waiting.pop()
        kind = type(item)
        if kind is dict or kind is list:
            count += len(item)
            level = place.level if place else 0
            if level >= DEPTH or count > VALUES:
                limit = f"{DEPTH} levels" if level >= DEPTH else f"{VALUES} values"
                raise AnimegenError(
                    f"{source} is refused: it holds more than {limit}, the limit for a run of animegen."
                )
        if kind is dict:
            parent[slot] = copy = {}
            for key, inner in item.items():
                if type(key) is not str:
                    raise _refused(source, place, f"the key {shown(key)}, which is not a text")
                key = _text(key, source, place, interpolations)
                copy[key] = None  # keeps the order
                waiting.append((inner, copy, key, _Place(place, key)))
        elif kind is list:
            parent[slot] = elements = [None] * len(item)
            waiting += [(inner, elements, number, _Place(place, str(number))) for number, inner in enumerate(item)]
        elif kind is str:
            parent[slot] = _text(item, source, place, interpolations)
        elif kind is int and item not in INTEGERS:
            raise _refused(source, place, "an integer of more than 64 bits")
        elif kind in (int, float, bool) or item is None:
            parent[slot] = item
        else:
            raise _refused(source, place, f"a value of the type {kind.__name__}")
    return top[0]


def read_json(path: Path, what: str, remedy: str) -> Any:
    """Read a JSON file as plain data.

    Args:
        path: the file.
        what: description for error messages, e.g. ``the record of a run``.
        remedy: what to do about a damaged file, without a period.

    Raises:
        AnimegenError: if it cannot be read, is larger than `BYTES`, is not JSON, or is refused by `plain_data`.
    """
    if regular_file(path).st_size > BYTES:
        raise AnimegenError(f"'{path}' has more than {BYTES // 2**20} MiB, too large for {what}: {remedy}.")
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"no JSON, {error}"
        raise AnimegenError(f"'{path}' is damaged and cannot be read as {what} ({reason}): {remedy}.") from error
    return plain_data(value, f"'{path}'")


def shown(value: object, width: int = 80) -> str:
    """Return a value from a file for a message: quoted, without control characters, and short."""
    text = _CONTROLS.sub("\ufffd", str(value))
    return f"'{text}'" if len(text) <= width else f"'{text[: width - 3]}...'"


class _Place:
    """A key or a number below another place; a chain of them costs less than a path for each value."""

    __slots__ = ("above", "level", "name")

    def __init__(self, above: _Place | None, name: str) -> None:
        self.above, self.name = above, name
        self.level: int = above.level + 1 if above else 1

    def __str__(self) -> str:
        return f"{self.above}.{self.name}" if self.above else self.name


def _text(text: str, source: str, place: _Place | None, interpolations: bool) -> str:
    if not interpolations and "${" in text:
        raise _refused(source, place, f"{shown(text)}, an interpolation")
    return _CONTROLS.sub("\ufffd", text)


def _refused(source: str, place: _Place | None, what: str) -> AnimegenError:
    where = f" at {shown(place)}" if place else ""
    return AnimegenError(f"{source} is refused: it holds {what}{where}; dicts, lists, texts and numbers are accepted.")
