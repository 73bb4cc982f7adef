"""Validation of plain data against type annotations."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from animegen.config.plain import shown

_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null"}
_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def mismatch(value: Any, expected: Any, where: str) -> str | None:
    """Return the error of a value, or ``None`` if it fits a type annotation.

    Understood are scalars, ``Any``, ``Literal``, unions, enums (by name), lists and tuples (of lists), dicts,
    ``TypedDict`` and dataclasses (of dicts; unknown keys are accepted, and those of a dataclass may be missing). A node
    ``{_target_: ...}`` fits any other class. Annotations that are not understood fit everything.

    Args:
        value: plain data.
        expected: the annotation.
        where: dotted key of the value, for the message.
    """
    options = get_args(expected) if get_origin(expected) in (Union, types.UnionType) else (expected,)
    faults = [_mismatch(value, option, where) for option in options]
    if None in faults:
        return None
    inner = [fault for fault in faults if fault and not fault.startswith(f"{where} is ")]
    return inner[0] if inner else f"{where} is {_value(value)}, not {' or '.join(_described(o) for o in options)}"


def check_settings(node: Any, locate: Callable[[str], Any], where: str) -> str | None:
    """Return the error in the settings of the nodes of a configuration, or ``None``.

    Args:
        node: plain data with nodes ``{_target_: ...}``.
        locate: returns the class or function of a dotted name.
        where: dotted key of the node.
    """
    if isinstance(node, dict):
        if "_target_" in node:
            called = locate(node["_target_"])
            known, others = settings_of(called)
            for key, value in node.items():
                if key.startswith("_") and key.endswith("_"):
                    continue
                if key not in known and not others:
                    return f"{where}: {called.__name__} has no setting {shown(key)}; it has: {', '.join(known)}"
                if key in known and (fault := mismatch(value, known[key], f"{where}.{key}")):
                    return fault
        parts: Iterator[tuple[Any, Any]] = iter(node.items())
    elif isinstance(node, list):
        parts = iter(enumerate(node))
    else:
        return None
    return next((fault for key, inner in parts if (fault := check_settings(inner, locate, f"{where}.{key}"))), None)


def settings_of(called: Any) -> tuple[dict[str, Any], bool]:
    """Return the settings of a class (with those of its bases) or function, and whether it takes any others."""
    functions = [called]
    if inspect.isclass(called):
        functions = [vars(base)["__init__"] for base in inspect.getmro(called)[:-1] if "__init__" in vars(base)]
    known: dict[str, Any] = {}
    others = not functions
    for number, function in enumerate(functions):
        parameters = inspect.signature(function).parameters
        try:
            hints = get_type_hints(function)
        except (TypeError, NameError):  # annotations that exist for type checkers only
            hints = {}
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        named = [name for name, p in parameters.items() if p.kind not in kinds and name != "self"]
        known = {name: hints.get(name, Any) for name in named} | known
        forwards = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        others = forwards if number == 0 else others  # they may be for more than the bases
        if not forwards:
            break
    return known, others


def _mismatch(value: Any, expected: Any, where: str) -> str | None:
    origin = get_origin(expected) or expected
    node = isinstance(value, dict) and "_target_" in value
    if origin in _NAMES:
        good = type(value) is origin or (origin is float and type(value) is int)
        return None if good else f"{where} is {_value(value)}, not {_NAMES[origin]}"
    if origin is Literal:
        return None if value in get_args(expected) else f"{where} is {_value(value)}, not {_described(expected)}"
    if origin in _LISTS:
        return None if node else _list_mismatch(value, expected, where)
    if origin in _DICTS or typing.is_typeddict(origin) or dataclasses.is_dataclass(origin):
        return None if node else _dict_mismatch(value, expected, where)
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        good = type(value) is str and value in origin.__members__
        return None if good else f"{where} is {_value(value)}, not {_described(expected)}"
    if isinstance(origin, type) and issubclass(origin, PurePath):
        return _mismatch(value, str, where)
    ours = isinstance(origin, type) and origin.__module__.split(".")[0] in ("animegen", "torch") and origin is not Any
    if ours and isinstance(value, bool | int | float | str | list):
        return f"{where} is {_value(value)}, not {_described(expected)}"
    return None


def _list_mismatch(value: Any, expected: Any, where: str) -> str | None:
    if type(value) is not list:
        return f"{where} is {_value(value)}, not a list"
    kinds = get_args(expected)
    if get_origin(expected) is tuple and kinds and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            return f"{where} has {len(value)} elements, not {len(kinds)}"
    else:
        kinds = (kinds[:1] or (Any,)) * len(value)
    faults = (mismatch(v, kind, f"{where}.{n}") for n, (v, kind) in enumerate(zip(value, kinds, strict=True)))
    return next(filter(None, faults), None)


def _dict_mismatch(value: Any, expected: Any, where: str) -> str | None:
    if type(value) is not dict:
        return f"{where} is {_value(value)}, not a dict"
    kinds: Mapping[str, Any]
    if typing.is_typeddict(expected) or dataclasses.is_dataclass(expected):
        kinds = get_type_hints(expected)
        missing = sorted(getattr(expected, "__required_keys__", frozenset()) - value.keys())
        if missing:
            return f"{where} lacks '{missing[0]}'"
    else:
        of = (*get_args(expected), Any, Any)[1] if get_args(expected) else Any
        kinds = dict.fromkeys(value, of)
    faults = (mismatch(value[key], kind, f"{where}.{key}") for key, kind in kinds.items() if key in value)
    return next(filter(None, faults), None)


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a dict" if isinstance(value, dict) else "a list"
    return shown(value, 40) if isinstance(value, str) else str(value)


def _described(expected: Any) -> str:
    origin = get_origin(expected) or expected
    if origin in _NAMES:
        return _NAMES[origin]
    if origin is Literal:
        return " or ".join(map(str, get_args(expected)))
    if origin in _LISTS:
        return "a list"
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        return "one of " + ", ".join(origin.__members__)
    if origin in _DICTS or typing.is_typeddict(origin) or dataclasses.is_dataclass(origin):
        return "a dict"
    return str(getattr(origin, "__name__", origin))
