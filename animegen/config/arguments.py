"""Check the values of a configuration against the annotations of the constructors.

For a constructor that declares ``channels: int``, text, NaN and fractions are rejected before anything is built; the
error names the dotted key, the value and the valid values.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import lru_cache
from types import NoneType
from typing import Any, Union, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from animegen.config.ranges import check_numbers
from animegen.config.values import accepts, alternatives, refusal

_PLAIN = (bool, int, float, str, NoneType)


def check_arguments(node: Any, key: str, locate: Any) -> None:
    """Check all numbers, texts and flags of a configuration node and of the nodes below it.

    Args:
        node: dict with ``_target_``, or a container of such dicts.
        key: its dotted key.
        locate: returns the class or function of a dotted name, or ``None``.

    Raises:
        AnimegenError: for a value of the wrong type, or outside of its range (see `animegen.config.ranges`).
    """
    if OmegaConf.is_config(node):
        try:
            node = OmegaConf.to_container(node, resolve=True)
        except OmegaConfBaseException:  # reported when it is built
            return
    check_numbers(node, key)
    _check_types(node, key, locate)


def _check_types(node: Any, key: str, locate: Any) -> None:
    if isinstance(node, list):
        for number, value in enumerate(node):
            _check_types(value, f"{key}.{number}", locate)
    if not isinstance(node, dict):
        return
    called = locate(node["_target_"]) if isinstance(node.get("_target_"), str) else None
    kinds = _kinds(called) if called is not None else {}
    for name, value in dict[Any, Any](node).items():
        kind = kinds.get(str(name))
        if kind is not None and not _fits(value, kind):
            raise refusal(f"{key}.{name}", value, kind)
        _check_types(value, f"{key}.{name}", locate)


def _fits(value: Any, kind: Any) -> bool:
    return (isinstance(value, Mapping) and "_target_" in value) or accepts(value, kind)


@lru_cache
def _kinds(called: Any) -> dict[str, Any]:
    """Return the annotations of the arguments that take plain values only."""
    functions = [called]
    if inspect.isclass(called):
        functions = [vars(base)["__init__"] for base in called.__mro__[:-1] if "__init__" in vars(base)]
    found: dict[str, Any] = {}
    for function in functions:
        try:
            hints = get_type_hints(function)
            parameters = inspect.signature(function).parameters.values()
        except (NameError, TypeError, ValueError):  # annotations for type checkers alone
            return found
        for name, kind in hints.items():
            # Optimizers also accept tensors as numbers, which a configuration cannot contain.
            kinds = [each for each in alternatives(kind) if getattr(each, "__name__", "") != "Tensor"]
            if name != "return" and kinds and all(_is_plain(each) for each in kinds):
                found.setdefault(name, Union[tuple(kinds)])  # noqa: UP007 - not known before
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def _is_plain(kind: Any) -> bool:
    return kind in _PLAIN or get_origin(kind) in (list, tuple, dict, Mapping)
