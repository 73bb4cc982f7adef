"""Grids: expansion of lists of values on a command line into runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException

from animegen.config.compose import explain
from animegen.config.groups import list_options
from animegen.errors import AnimegenError

#: The largest number of runs.
MOST = 10_000


def expand_grid(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the overrides of each run; the last list of values varies fastest.

    Args:
        words: overrides, some with several values: ``seed=0,1``, ``seed=range(4)``, ``experiment=glob(toy/*)``.

    Raises:
        AnimegenError: for an invalid override, an interval, or too many runs.
    """
    try:
        overrides = OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise AnimegenError(explain(error, "train", words)) from error
    choices: dict[str, list[str]] = {}
    for word, override in zip(words, overrides, strict=True):
        key, value = override.get_key_element(), override.value()
        if isinstance(value, Glob):
            start = f"{override.key_or_group}/"
            found = value.filter([each.removeprefix(start) for each in list_options() if each.startswith(start)])
            if not found:
                raise AnimegenError(f"'{word}' matches no option: animegen list {override.key_or_group}s shows them.")
            choices[key] = [f"{key}={option}" for option in found]
        elif not override.is_sweep_override():
            choices[key] = [word]
        elif override.is_discrete_sweep():
            values = itertools.islice(override.sweep_string_iterator(), MOST + 1)
            choices[key] = [f"{key}={value}" for value in values]
        else:
            raise AnimegenError(f"'{word}' is an interval: list its values.")
    if (count := math.prod(map(len, choices.values()))) > MOST:
        raise AnimegenError(f"The lists of values make {count} runs or more: at most {MOST} are possible.")
    return list(itertools.product(*choices.values()))
