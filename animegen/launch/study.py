"""Studies: a grid of runs from one file, ``animegen train study=<name>``, one process per run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from omegaconf import DictConfig

from animegen.config.compose import compose_config, literal_paths, plain, quoted, register
from animegen.config.groups import list_groups, read_changes
from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json, shown
from animegen.config.schema import GridOptions, schema_keys
from animegen.config.studies import find_study, study_roots
from animegen.errors import AnimegenError, did_you_mean
from animegen.launch.execution import run_grid
from animegen.launch.grid import Grid, Job, compose_job
from animegen.launch.launchers import split_launcher

RECORD = "study.json"


class RunEntry(TypedDict):
    """A run in the record of a study."""

    row: str
    seed: int
    folder: str


class StudyRecord(TypedDict):
    """The content of ``study.json``."""

    study: str
    command: str
    question: str | None
    baseline: str | None
    metrics: list[str] | None
    samples: list[int] | None
    runs: list[RunEntry]


def read_study(folder: Path) -> dict[str, Any]:
    """Return the record of a study, plain data of the types that `StudyRecord` declares.

    Raises:
        AnimegenError: if it cannot be read, or names folders outside of the study's.
    """
    path, remedy = folder / RECORD, "run the study again"
    record = read_json(path, "the record of a study", remedy)
    if fault := mismatch(record, StudyRecord, "it"):
        raise AnimegenError(f"'{path}' is damaged, {fault}: {remedy}.")
    for entry in record["runs"]:
        if Path(entry["folder"]).is_absolute() or ".." in Path(entry["folder"]).parts:
            name = shown(entry["folder"])
            raise AnimegenError(f"'{path}' is refused, its run {name} is not in the folder of the study: {remedy}.")
    return record


# --- The study file ------------------------------------------------------------------------------------------------


def compose_study(name: str, words: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a study.

    Args:
        name: of the study.
        words: overrides of the study's own keys.
    """
    path = find_study(name)
    if "@package _global_" not in path.read_text("utf-8").partition("\n")[0]:
        raise AnimegenError(f"The study '{path}' must begin with the line '# @package _global_'.")
    folders = ",".join(quoted(f"file://{root}") for root in study_roots() if (root / "study").is_dir())
    return compose_config("study", [f"study={name}", f"hydra.searchpath=[{folders}]", *words])


def split_words(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Return (name of the study, overrides of its own keys, overrides for all its runs).

    Raises:
        AnimegenError: for arguments that a study does not take.
    """
    register()
    mine = schema_keys("study")
    known = [*mine, *schema_keys("train"), *list_groups()]
    instead = {"seed": "seeds=[...]", "experiment": "experiments=[...]", "ablation": "ablations=[...]"}
    name = ""
    own: list[str] = []
    common: list[str] = []
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if word.startswith("-"):
            raise AnimegenError(f"A study takes no option {word}: leave it out.")
        if key == "study":
            name = word.partition("=")[2]
        elif key in instead:
            raise AnimegenError(f"A study sets {key} for each run: use {instead[key]} instead of '{word}'.")
        elif key == "resume":
            raise AnimegenError("A study resumes unfinished runs automatically: leave out resume=.")
        elif key.partition(".")[0] not in known:
            raise AnimegenError(f"'{key}' is not a key of studies or runs.{did_you_mean(key, known)}")
        else:
            (own if key.partition(".")[0] in mine else common).append(word)
    return name, own, common


# --- Expansion -----------------------------------------------------------------------------------------------------


def expand(config: DictConfig, common: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return the rows of a study, experiments x changes, as name -> overrides.

    Args:
        config: see :class:`animegen.config.schema.StudySchema`.
        common: overrides for all runs, after the study's own.

    Raises:
        AnimegenError: if nothing is left to run, or two rows have the same name.
    """
    for key in ("experiments", "ablations", "seeds"):
        values = list(config[key])
        if not values and not (key == "ablations" and config.variants):
            raise AnimegenError(f"The study has no {key}: give at least one.")
        if len(values) != len({str(value) for value in values}):
            raise AnimegenError(f"The study names one of its {key} twice: {values}.")
    titles = _short_names(config.experiments) if len(config.experiments) > 1 else {}
    rows: dict[str, tuple[str, ...]] = {}
    for experiment in config.experiments:
        words = [f"experiment={experiment}", *config.overrides]
        for change, overrides in changes(config, [*words, *common]):
            parts = [part for part in (titles.get(experiment, ""), change) if part and part != "none"]
            name = "+".join(parts) or "plain"
            if name in rows:
                raise AnimegenError(f"Two rows of the study are called '{name}': rename or leave out one of them.")
            # A change has priority over the study, and the command line over both.
            rows[name] = (*words, *overrides, *common)
    if config.baseline is not None and config.baseline not in rows:
        raise AnimegenError(
            f"baseline={config.baseline} is not a row of the study.{did_you_mean(config.baseline, rows)}"
            f" It has: {', '.join(rows)}."
        )
    return rows


def changes(config: DictConfig, words: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the changes of an experiment, as (name, overrides): ablations, variants, and terms left out.

    Args:
        config: see :class:`animegen.config.schema.StudySchema`.
        words: overrides that compose the experiment.
    """
    chosen = [[value] if isinstance(value, str) else list(value) for value in config.ablations]
    short = _short_names([name for names in chosen for name in names])
    named = [("+".join(short[name] for name in names), (f"ablation={_option(names)}",)) for names in chosen]
    variants = read_changes(plain(config)["variants"], "The study's variants")
    without = leave_one_out(config.leave_one_out, words) if config.leave_one_out else {}
    return [*named, *variants.items(), *without.items()]


def leave_one_out(objective: str, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return a change per term of an objective of the composed configuration, ``{no_<term>: (override,)}``.

    Terms that are not built (``null``, or of weight 0) have none.

    Args:
        objective: its name in ``model.objectives``.
        words: overrides that compose the configuration.

    Raises:
        AnimegenError: if there is no such objective, or if it has one term only.
    """
    objectives = plain(compose_config("train", words))["model"].get("objectives") or {}
    objectives = {name: node for name, node in objectives.items() if node}
    if objective not in objectives:
        raise AnimegenError(
            f"leave_one_out={objective}: the model has no such objective.{did_you_mean(objective, objectives)}"
            f" It has: {', '.join(objectives)}."
        )
    terms = {
        name: node
        for name, node in objectives[objective].items()
        if isinstance(node, dict) and "weight" in node and node["weight"] != 0
    }
    if len(terms) < 2:
        raise AnimegenError(f"leave_one_out={objective}: the objective has only one term.")
    return {f"no_{term}": (f"~model.objectives.{objective}.{term}",) for term in terms}


def _option(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the last part of each name, or all of it where two would be the same."""
    names = list(dict.fromkeys(names))
    last = {name: name.rpartition("/")[2] for name in names}
    return {name: short if list(last.values()).count(short) == 1 else name for name, short in last.items()}


# --- The grid ------------------------------------------------------------------------------------------------------


def run_study(words: Sequence[str]) -> int:
    """Run ``animegen train study=<name> ...``; return the exit code, 1 if a run failed."""
    return run_grid(plan_study(words))


def plan_study(words: Sequence[str]) -> Grid:
    """Return the runs of a study.

    Args:
        words: of the command line.

    Raises:
        AnimegenError: for a mistake in the study, the arguments, or the configuration of a run.
    """
    launcher, others = split_launcher(words)
    name, own, common = split_words(others)
    config = compose_study(name, literal_paths("study", own))
    folder = Path(config.output or f"runs/study/{name}")
    jobs, rows = [], []
    every = expand(config, literal_paths("train", common)).items()
    for seed, (row, changed) in itertools.product(config.seeds, every):  # each row has an early result
        title, overrides = f"{row}, seed {seed}", (*changed, f"seed={seed}")
        place = f"{row.replace('/', '_')}/seed{seed}"
        jobs.append(Job(title, overrides, folder / place, compose_job(title, overrides)[0]))
        rows.append({"row": row, "seed": seed, "folder": place})
    command = ["animegen", "train", *words]
    shown = {key: plain(config)[key] for key in ("question", "baseline", "metrics", "samples")}
    return Grid(
        title=f"study {name}",
        folder=folder,
        jobs=jobs,
        options=GridOptions(overwrite=config.overwrite, jobs=config.jobs, dry_run=config.dry_run),
        launcher=launcher,
        record=(RECORD, {"study": name, **shown, "command": shlex.join(command), "runs": rows}),
        again=shlex.join(word for word in command if not word.startswith("overwrite=")),
        compare=f"animegen compare study={name}" + (f" {shlex.quote(str(folder))}" if config.output else ""),
    )
