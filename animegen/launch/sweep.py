"""Sweeps: ``animegen train -m``, one run for each combination of values, or the runs of a search."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TypedDict

from animegen.config.ablations import ablation_choices
from animegen.config.compose import run_dir
from animegen.config.grids import expand_grid
from animegen.config.mismatch import mismatch
from animegen.config.options import keys_of, read
from animegen.config.plain import read_json
from animegen.config.recorded import check_sweep
from animegen.config.schema import GridOptions
from animegen.engine.runs import unquoted
from animegen.errors import AnimegenError
from animegen.launch.execution import run_grid
from animegen.launch.grid import Grid, Job, compose_job
from animegen.launch.launchers import LAUNCHERS, key_of, split_launcher

RECORD = "sweep.json"
MULTIRUN = ("-m", "--multirun")
#: Keys and options of the sweep rather than of its runs.
_OF_THE_SWEEP = (*MULTIRUN, "output", "runs", "hydra.mode")


class SweepRecord(TypedDict):
    """What is read of ``sweep.json``."""

    words: list[str]


def is_sweep(words: Sequence[str]) -> bool:
    """Tell whether the arguments of ``animegen train`` ask for a sweep."""
    keys = {word.partition("=")[0] for word in words}
    return "resume_sweep" in keys or "hydra.mode=MULTIRUN" in words or bool(set(split_options(words)[1]) & {*MULTIRUN})


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


def run_sweep(words: Sequence[str]) -> int:
    """Run ``animegen train -m ...`` or ``animegen train resume_sweep=<folder>``; return the exit code."""
    return run_grid(plan_sweep(words))


def plan_sweep(words: Sequence[str]) -> Grid:
    """Return the runs of a sweep.

    Args:
        words: of the command line.

    Raises:
        AnimegenError: for a mistake in the arguments or in the configuration of a run.
    """
    if more := [word for word in split_options(words)[1] if word not in MULTIRUN]:
        raise AnimegenError(
            f"-m cannot be combined with {' '.join(more)}: dry_run=true prints the runs of a sweep, and --cfg job the"
            " configuration of one."
        )
    values = {key: unquoted(value) for key, equals, value in (word.partition("=") for word in words) if equals}
    names = [key.name for key in keys_of(GridOptions)]
    options = read(GridOptions, [word for word in words if word.partition("=")[0] in names])
    launcher, others = split_launcher([word for word in words if word.partition("=")[0] not in names])
    if "resume_sweep" in values:
        folder = Path(values["resume_sweep"])
        given = [word for word in others if word.partition("=")[0] not in (*MULTIRUN, "resume_sweep", "trust")]
        if given:
            raise AnimegenError(f"resume_sweep= finishes a sweep as it was: leave out {' '.join(given)}.")
        old, others = split_launcher(_recorded(folder, trusted="trust=true" in words))
        launcher = _merged(old, launcher)
    else:
        time_ = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = Path(values.get("output") or f"{values.get('runs', 'runs')}/sweep/{time_}")
        _check_free(folder, options.overwrite)
    mine = [word for word in others if word.partition("=")[0] not in _OF_THE_SWEEP]
    if any(word.startswith("resume=") for word in mine):
        raise AnimegenError("resume= continues one run: leave out -m. resume_sweep=<folder> continues a sweep.")
    recorded = ["-m", *mine, *launcher]
    command = shlex.join(["animegen", "train", *recorded])
    search = mine if _is_search(mine) else []
    jobs = [] if search else plan_jobs(mine, folder)
    if search:
        ablation_choices(mine)  # raises for those that do not exist
        again = "the same command, with hydra.sweeper.storage= and study_name= of the first one"
        if options.overwrite:
            search = [*search, "overwrite=true"]
    else:
        again = f"animegen train resume_sweep={shlex.quote(str(folder))}"
    return Grid(
        title="sweep",
        folder=folder,
        jobs=jobs,
        options=options,
        launcher=launcher,
        record=(RECORD, {"command": command, "words": recorded}),
        again=again,
        compare=f"animegen compare {shlex.quote(str(folder))}",
        search=search,
    )


def plan_jobs(words: Sequence[str], folder: Path) -> list[Job]:
    """Return the runs for all combinations of the values in overrides."""
    jobs = []
    for number, overrides in enumerate(expand_grid(words)):
        swept = " ".join(word for word in overrides if word not in words)
        name = f"job {number} ({swept})" if swept else f"job {number}"
        config, choices = compose_job(name, overrides)
        parts = (choices["experiment"], choices["model"], config["ablations"], config["seed"])
        jobs.append(Job(name, overrides, folder / run_dir(None, None, ".", *parts, number), config))
    return jobs


def _check_free(folder: Path, overwrite: bool) -> None:
    """Refuse the folder of another sweep, unless that trained nothing."""
    if not overwrite and (folder / RECORD).exists() and any(folder.rglob("checkpoints/*.ckpt")):
        raise AnimegenError(
            f"'{folder}' already holds a sweep: finish it with resume_sweep={folder}, choose another output=, or"
            " overwrite=true."
        )


def _recorded(folder: Path, trusted: bool) -> list[str]:
    """Return the recorded arguments of a sweep.

    Raises:
        AnimegenError: if there are none, or they were not written by animegen.
    """
    path = folder / RECORD
    if not path.exists():
        raise AnimegenError(f"'{folder}' has no {RECORD}: name the folder of a sweep, which animegen train -m printed.")
    record = read_json(path, "the record of a sweep", "run the sweep again")
    if fault := mismatch(record, SweepRecord, "it"):
        raise AnimegenError(f"'{path}' is damaged, {fault}: run the sweep again.")
    words: list[str] = record["words"]
    if not trusted:
        check_sweep(words, f"The record '{path}'", LAUNCHERS)
        words = [word for word in words if key_of(word) != "trust"]
    words = [word for word in words if key_of(word) != "overwrite"]  # finished runs stay
    if _is_search(words):
        raise AnimegenError(
            "resume_sweep= finishes a list of runs. To continue a search, run its command again with"
            " hydra.sweeper.storage= and hydra.sweeper.study_name=."
        )
    return words


def _merged(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return the overrides of a launcher followed by new ones; another launcher drops the settings of the old one."""
    changed = {key_of(word) for word in new}
    kept = [] if "hydra/launcher" in changed else [word for word in old if key_of(word) not in changed]
    return [*kept, *new]


def _is_search(words: Sequence[str]) -> bool:
    """Tell whether a sweeper chooses the values, rather than a list."""
    return any(
        word.startswith(("hydra/sweeper=", "search=")) and word.split("=")[1] not in ("basic", "none") for word in words
    )
