"""The modes of ``animegen train``: which of them a command line asks for."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from animegen.errors import AnimegenError

MULTIRUN = ("-m", "--multirun")


class Mode(Enum):
    """What ``animegen train`` does with its words."""

    run = "one run"
    sweep = "one run per combination of values"
    study = "the grid of a study file"
    rerun = "a recorded run again"


def choose_mode(words: Sequence[str]) -> Mode:
    """Return the mode that the words of ``animegen train`` ask for."""
    keys = {key: value for key, equals, value in (word.partition("=") for word in words) if equals}
    if "study" in keys:
        return Mode.study
    if "resume_sweep" in keys or keys.get("hydra.mode") == "MULTIRUN" or set(split_options(words)[1]) & set(MULTIRUN):
        return Mode.sweep
    return Mode.rerun if "rerun" in keys else Mode.run


def split_options(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (overrides, options of Hydra with their values), each in the given order.

    Raises:
        AnimegenError: for the option of Hydra that runs code from a file.
    """
    overrides = [word for word in words if not word.startswith("-") and ("=" in word or word.startswith("~"))]
    if any(word.startswith("--e") for word in words):  # which Hydra completes
        raise AnimegenError(
            "--experimental-rerun loads a pickle, which may run any code: run a run again with rerun=<run folder>."
        )
    # Without any option, a word that is no override is a mistake to report, not the value of an option.
    if not any(word.startswith("-") for word in words):
        return list(words), []
    return overrides, [word for word in words if word not in overrides]
