"""Overrides and configurations that a run has recorded: untrusted data."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType
from hydra.errors import HydraException

from animegen.config.compose import compose_config, plain
from animegen.config.grids import expand_grid
from animegen.config.groups import list_groups
from animegen.config.plain import plain_data, shown
from animegen.config.trust import check_config, named_in
from animegen.errors import AnimegenError

REMEDY = (
    "If you wrote it, or trust who did, add trust=true: then the record may import and run any Python code that is"
    " installed."
)
#: Limits on the length of all overrides and the nesting of one, far beyond hand-written ones.
LENGTH, NESTING = 50_000, 50
#: Jobs of a recorded sweep that are composed one by one to be checked.
JOBS = 200

#: What may follow ``${``: a key of the configuration, or a resolver of animegen that computes with its arguments.
_INTERPOLATION = re.compile(r"\$\{(?!\s*(?:[\w.]+\s*\}|(?:mul|share|minus|torchrun|oc\.select)\s*:))")
_NAME = re.compile(r"[\w.+-]*")
#: Settings of launchers that name programs.
_PROGRAMS = ("python", "setup", "submitit_folder")
_OPTION = re.compile(r"[\w+-]+(/[\w+-]+)*")


def recorded_words(words: Sequence[str], source: str) -> list[str]:
    """Return recorded overrides after checking that they only set values and choose installed options.

    Those of Hydra's own configuration are omitted: they concern the process that recorded them.

    Args:
        words: overrides of ``animegen train``.
        source: the file for messages, e.g. ``The record 'run.json'``.

    Raises:
        AnimegenError: for any other argument: options, sweeps, files, and interpolations beyond the configuration.
    """
    checked = zip(words, _parsed(words, source), strict=True)
    return [word for word, found in checked if not _is_of_hydra(found) and not _refused_sweep(found, source)]


def check_recorded(words: Sequence[str], given: Sequence[str], source: str) -> None:
    """Compose recorded overrides, and check the constructors that a run with them would call.

    Args:
        words: the result of `recorded_words`, and the arguments of the command line.
        given: the arguments of the command line; the constructors that they name are permitted.
        source: the file for messages.

    Raises:
        AnimegenError: if they cannot be composed, or use unlisted constructors (see `animegen.config.trust`).
    """
    check_config(plain_data(compose_recorded(words, source), source), source, REMEDY, named_in(given))


def compose_recorded(words: Sequence[str], source: str) -> dict[str, Any]:
    """Return the resolved configuration of a run, composed from recorded overrides.

    Raises:
        AnimegenError: if they cannot be composed.
    """
    try:
        return plain(compose_config("train", words))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:  # Hydra's own for odd values
        text = " ".join(str(error).split())[:160]
        raise AnimegenError(f"{source} is refused: its overrides cannot be composed ({text}).") from error


def check_sweep(words: Sequence[str], source: str, launchers: Collection[str]) -> None:
    """Check the recorded overrides of a sweep: those of its jobs, its launcher, and simple settings of the launcher.

    Args:
        words: overrides, and ``-m``.
        source: the file for messages.
        launchers: names of the launchers that may start the jobs.

    Raises:
        AnimegenError: for any other override, or if a job would call unlisted constructors.
    """
    words = [word for word in words if word not in ("-m", "--multirun")]
    found = _parsed(words, source)
    for word, each in zip(words, found, strict=True):
        if _is_of_hydra(each) and not _is_harmless(each, launchers):
            raise AnimegenError(f"{source} is refused: {shown(word)} may run programs. {REMEDY}")
    of_jobs = [word for word, each in zip(words, found, strict=True) if not _is_of_hydra(each)]
    # Without a node and a reference an override can only make Hydra build the installed options.
    texts = [text for word, each in zip(words, found, strict=True) for text in _texts(word, each)]
    if any("_target_" in text or "$" in text for text in texts):
        jobs = expand_grid(of_jobs)
        if len(jobs) > JOBS:
            raise AnimegenError(
                f"{source} is refused: it asks for more than {JOBS} jobs with parts of their own. {REMEDY}"
            )
        for job in jobs:
            check_recorded(job, (), source)


def _is_of_hydra(override: Override) -> bool:
    return re.split(r"[./]", override.key_or_group)[0] == "hydra"


def _is_harmless(override: Override, launchers: Collection[str]) -> bool:
    """Return whether an override of Hydra's configuration chooses a launcher or sets a simple value of it."""
    key, value = override.key_or_group, override.value()
    if key in ("hydra/launcher", "hydra/sweeper"):
        return value == "basic" or (key == "hydra/launcher" and value in launchers)
    name = key.removeprefix("hydra.launcher.")
    simple = value is None or isinstance(value, int | float) or bool(_NAME.fullmatch(str(value)))
    return name != key and bool(re.fullmatch(r"[a-z]\w*", name)) and name not in _PROGRAMS and simple


def _refused_sweep(override: Override, source: str) -> bool:
    if override.is_sweep_override():
        raise AnimegenError(f"{source} is refused: {shown(override.input_line)} is no override of a single run.")
    return False


def _parsed(words: Sequence[str], source: str) -> list[Override]:
    if sum(map(len, words)) > LENGTH:
        raise AnimegenError(f"{source} is refused: its overrides have more than {LENGTH} characters.")
    return [_override(word, source) for word in words]


def _override(word: str, source: str) -> Override:
    steps = (1 if letter in "[{(" else -1 if letter in ")}]" else 0 for letter in word)
    try:
        if max(itertools.accumulate(steps), default=0) > NESTING:
            raise ValueError("nested too deeply")
        found = OverridesParser.create().parse_override(word)
        value = found.value()
    except (HydraException, ValueError, RecursionError) as error:
        raise AnimegenError(f"{source} is refused: it holds {shown(word)}, which is no override of a run.") from error
    if found.package is not None:
        raise AnimegenError(f"{source} is refused: it holds {shown(word)}, which is no override of a run.")
    group = "/" in found.key_or_group or found.key_or_group in (*list_groups(), "schema")
    options = _values(value) if group and found.type is not OverrideType.DEL else ()
    if not all(option == "None" or _OPTION.fullmatch(option) for option in options):
        raise AnimegenError(f"{source} is refused: {shown(word)} chooses no option of animegen. {REMEDY}")
    if any(_INTERPOLATION.search(text) for text in _texts(word, found)):
        raise AnimegenError(
            f"{source} is refused: {shown(word)} refers to something outside of the configuration. {REMEDY}"
        )
    return found


def _texts(word: str, override: Override) -> list[str]:
    """Return an override, and all texts in its value, also those that were written with escapes."""
    return [word, *_values(override.value())]


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _values(inner)
    elif isinstance(value, list | ChoiceSweep):
        for inner in value if isinstance(value, list) else value.list:
            yield from _values(inner)
    else:
        yield str(getattr(value, "text", value))
