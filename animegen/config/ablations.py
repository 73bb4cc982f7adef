"""Ablations on the command line: ``ablation=<name>`` is replaced by the overrides of a catalogue entry.

They are inserted before the user's overrides, which take precedence; Hydra never sees ``ablation=``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException
from omegaconf import ListConfig

from animegen.config.groups import list_ablations, list_options
from animegen.config.messages import no_option
from animegen.errors import AnimegenError

KEY = "ablation"


def expand(overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the chosen ablations, their names in ``ablations``, and all other given overrides.

    Args:
        overrides: arguments of the command line; ``ablation=a`` or ``ablation=[a,b]`` selects, and the last one counts.

    Raises:
        AnimegenError: for an ablation that does not exist.
    """
    chosen = [list_ablations()[name] for name in chosen_ablations(overrides)]
    names = [f"++ablations.{name}=true" for name in recorded([ablation.name for ablation in chosen])]
    others = [word for word in overrides if word.partition("=")[0] != KEY]
    return [*(word for ablation in chosen for word in ablation.overrides), *names, *others]


def chosen_ablations(overrides: Sequence[str]) -> list[str]:
    """Return the names of the ablations that a command line chooses for one run.

    Raises:
        AnimegenError: for an unknown ablation, or for several choices without a sweep.
    """
    choices = ablation_choices(overrides)
    if len(choices) > 1:
        word = next(word for word in reversed(overrides) if word.startswith(f"{KEY}="))
        value = word.partition("=")[2]
        raise AnimegenError(
            f"'{word}' gives several values: add -m to run once with each, or write '{KEY}=[{value}]' to combine them."
        )
    return choices[0]


def ablation_choices(overrides: Sequence[str]) -> list[list[str]]:
    """Return the names in each choice of the last ``ablation=``; there is one choice except in a sweep.

    Raises:
        AnimegenError: for an ablation that does not exist.
    """
    words = [word for word in overrides if word.partition("=")[0] == KEY]
    if not words:
        return [[]]
    try:
        value = OverridesParser.create().parse_override(words[-1]).value()
    except HydraException as error:
        raise AnimegenError(f"'{words[-1]}' cannot be read: write {KEY}=<name>, or '{KEY}=[<name>,<name>]'.") from error
    choices = [_names(choice) for choice in (value.list if isinstance(value, ChoiceSweep) else [value])]
    for name in (name for names in choices for name in names):
        if name not in list_ablations():
            raise AnimegenError(no_option(f"{KEY}/{name}", list_options()))
    return choices


def recorded(value: Any) -> dict[str, bool]:
    """Return what ``ablations`` of a run holds for a value of ``ablation=``: ``{<name without family>: True}``."""
    return {name.rpartition("/")[2]: True for name in _names(value)}


def _names(value: Any) -> list[str]:
    """Return the names in a value of ``ablation=``: one name, a list of names, ``none`` or null."""
    values = value if isinstance(value, list | ListConfig) else [value]
    names = [str(name.text if isinstance(name, QuotedString) else name) for name in values if name is not None]
    return [name for name in names if name != "none"]
