"""Types and ranges of values: read from text, checked, and described in one sentence when they do not fit.

A kind is a type annotation: ``bool``, ``int``, ``float``, ``Fraction``, ``str``, an ``Enum``, a ``Literal``, a list of
these, or a union of these with ``None``. Values of any other type are accepted as they are.
"""

from __future__ import annotations

import collections.abc
import math
import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from animegen.errors import AnimegenError, did_you_mean
from animegen.files import shown as abbreviated


@dataclass(frozen=True)
class Range:
    """The numbers that are allowed; NaN and infinity never are.

    Attributes:
        minimum: inclusive lower bound.
        maximum: inclusive upper bound.
        above: exclusive lower bound.
        also: further numbers that are allowed.
        below: smallest number that is too large.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    also: tuple[float, ...] = ()
    below: float | None = None

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        if value in self.also:
            return True
        low = (self.minimum is None or value >= self.minimum) and (self.above is None or value > self.above)
        high = (self.maximum is None or value <= self.maximum) and (self.below is None or value < self.below)
        return low and high

    def __str__(self) -> str:
        if self.above is not None:
            text = f"above {_number(self.above)}"
            text += "" if self.maximum is None else f" and at most {_number(self.maximum)}"
        elif self.minimum is not None and self.below is not None:
            text = f"from {_number(self.minimum)} to below {_number(self.below)}"
        elif self.minimum is not None and self.maximum is not None:
            text = f"from {_number(self.minimum)} to {_number(self.maximum)}"
        elif self.minimum is not None:
            text = f"of at least {_number(self.minimum)}"
        else:
            text = "" if self.maximum is None else f"of at most {_number(self.maximum)}"
        return " or ".join([*([text] if text else []), *map(_number, self.also)])


#: No limits.
ANY = Range()


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the kind alone."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def is_list(kind: Any) -> bool:
    """Return whether a kind is a list, or a list or ``None``."""
    return any(_is_sequence(each) for each in alternatives(kind))


def element(kind: Any) -> Any:
    """Return the kind of the elements of a list."""
    return next((*get_args(each), Any)[0] for each in alternatives(kind) if _is_sequence(each))


def _is_sequence(kind: Any) -> bool:
    return get_origin(kind) in (list, tuple, collections.abc.Sequence)


# --- from text ------------------------------------------------------------------------------------------------


def convert(text: str, kind: Any) -> Any:
    """Return the value that a text represents.

    Raises:
        ValueError: if it represents no value of that kind.
    """
    for each in sorted(alternatives(kind), key=lambda each: each in (str, Any)):
        try:
            return _convert(text, each)
        except ValueError:
            continue
    raise ValueError(text)


def _convert(text: str, kind: Any) -> Any:
    if kind is NoneType and text == "null":
        return None
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if get_origin(kind) is Literal and text in get_args(kind):
        return text
    if isinstance(kind, type) and issubclass(kind, Enum) and text in kind.__members__:
        return kind[text]
    if kind is int and re.fullmatch(r"[+-]?\d{1,100}", text):
        return int(text)
    if kind is float:
        return float(text)
    if kind is Fraction and re.fullmatch(r"[+-]?(\d{1,30}(\.\d{1,30})?|\d{1,30}/0*[1-9]\d{0,30})", text):
        return Fraction(text)
    if kind in (str, Any):
        return text
    raise ValueError(text)


# --- checks ---------------------------------------------------------------------------------------------------


def accepts(value: Any, kind: Any, limits: Range = ANY) -> bool:
    """Return whether a value is of a kind and within the limits."""
    return any(_accepts(value, each, limits) for each in alternatives(kind))


def _accepts(value: Any, kind: Any, limits: Range) -> bool:
    if kind is NoneType:
        return value is None
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value in limits
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and value in limits
    if kind is Fraction:
        return isinstance(value, int | Fraction) and not isinstance(value, bool) and value in limits
    if kind is str:
        return isinstance(value, str)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, kind)
    if get_origin(kind) in (dict, collections.abc.Mapping):
        return isinstance(value, collections.abc.Mapping)
    if _is_sequence(kind):
        return isinstance(value, list | tuple) and all(accepts(each, element(kind), limits) for each in value)
    return True


def describe(kind: Any, limits: Range = ANY) -> str:
    """Return what values are allowed: ``an integer of at least 1``, ``one of cpu, cuda`` ..."""
    texts = []
    for each in alternatives(kind):
        if each is int:
            texts.append(f"an integer {limits}".strip())
        elif each is float:
            texts.append(f"a number {limits}".strip())
        elif each is Fraction:
            texts.append(f"a number or a fraction such as 24000/1001, {limits}".removesuffix(", "))
        elif each is bool:
            texts.append("true or false")
        elif each is NoneType:
            texts.append("null")
        elif get_origin(each) is Literal:
            names = get_args(each)
            texts.append(names[0] if len(names) == 1 else f"one of {', '.join(names)}")
        elif isinstance(each, type) and issubclass(each, Enum):
            texts.append(f"one of {', '.join(each.__members__)}")
        elif get_origin(each) in (dict, collections.abc.Mapping):
            texts.append("key: value pairs {a: 1}")
        elif _is_sequence(each):
            texts.append(f"a list [a,b] in which each is {describe(element(each), limits)}")
        else:
            texts.append("a text")
    return ", or ".join(sorted(texts, key=lambda text: text == "null"))


def refusal(key: str, value: Any, kind: Any, limits: Range = ANY) -> AnimegenError:
    """Return the error for an invalid value: key, value, valid values."""
    text = abbreviated(shown(value))
    names = [name for each in alternatives(kind) for name in _names(each)]
    return AnimegenError(f"{key}={text} is not valid: use {describe(kind, limits)}.{did_you_mean(text, names)}")


def check(key: str, value: Any, kind: Any, limits: Range = ANY) -> None:
    """Raise :class:`AnimegenError` unless a value is of a kind and within the limits."""
    if not accepts(value, kind, limits):
        raise refusal(key, value, kind, limits)


def shown(value: Any) -> str:
    """Return a value as a user writes it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    return str(value)


def _names(kind: Any) -> tuple[str, ...]:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return tuple(kind.__members__)
    return get_args(kind) if get_origin(kind) is Literal else ()
