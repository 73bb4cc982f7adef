"""Studies: a grid of runs from one file, ``animegen train study=<name>``, one process per run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from animegen.config.compose import compose_config, plain, register
from animegen.config.fitting import check_ablations
from animegen.config.groups import Ablation, list_groups, read_changes
from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json, shown
from animegen.config.schema import schema_keys
from animegen.config.studies import find_study, study_roots
from animegen.engine.runs import has_record, quoted, read_record
from animegen.errors import AnimegenError, did_you_mean
from animegen.launch import jobs
from animegen.locks import locked
from animegen.reports.differences import CIRCUMSTANCES, differences

HELP = """animegen train study=<name> [key=value ...]

  animegen train study=toy jobs=2                     the grid of the study, two runs at a time
  animegen train study=toy leave_one_out=generator    and one run without each term of that objective
  animegen train study=toy train_steps=50 output=runs/try    any other key is an override for all runs
  animegen compare study=toy                          then: the table, the plots, the pictures

A study is a file experiments/study/<name>.yaml in the current folder or in the clone (some come with the package).
Its keys: question, experiments, ablations, variants, leave_one_out, seeds, overrides, baseline, metrics, samples; and
jobs, output, overwrite, dry_run. The same command again does what is missing: finished runs stay, others go on."""

RECORD = "study.json"


@dataclass
class StudySchema:
    """Keys of a study."""

    question: str = ""
    experiments: list[str] = field(default_factory=lambda: ["none"])
    ablations: list[Any] = field(default_factory=lambda: ["none"])
    variants: dict[str, list[str]] = field(default_factory=dict)
    leave_one_out: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1])
    overrides: list[str] = field(default_factory=list)
    baseline: str | None = None
    metrics: list[str] | None = None
    samples: list[int] | None = None
    jobs: int = 1
    output: str | None = None
    overwrite: bool = False
    dry_run: bool = False


class RunEntry(TypedDict):
    """A run in the record of a study."""

    row: str
    seed: int
    folder: str


class StudyRecord(TypedDict):
    """What ``study.json`` holds."""

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


@dataclass(frozen=True)
class Row:
    """One line of the study's table: what is trained, once per seed."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        row: name of its row.
        seed: its seed.
        folder: where it goes, below the study's folder.
        words: its overrides, without those about the process (``output``, ``threads``).
        config: the configuration that they compose, as ``run.json`` holds it.
    """

    row: str
    seed: int
    folder: Path
    words: tuple[str, ...]
    config: dict[str, Any] = field(repr=False, default_factory=dict)


# --- The study file ------------------------------------------------------------------------------------------------


def _register() -> None:
    register()
    ConfigStore.instance().store(group="schema", name="study", node=StudySchema, package="_global_")


def compose_study(name: str, words: Sequence[str] = ()) -> DictConfig:
    """Compose the configuration of a study.

    Args:
        name: of the study.
        words: overrides of the study's own keys.
    """
    path = find_study(name)
    if "@package _global_" not in path.read_text("utf-8").partition("\n")[0]:
        raise AnimegenError(f"The study '{path}' must begin with the line '# @package _global_'.")
    _register()
    folders = ",".join(quoted(f"file://{root}") for root in study_roots() if (root / "study").is_dir())
    return compose_config("study", [f"study={name}", f"hydra.searchpath=[{folders}]", *words])


def split_words(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """Return (name of the study, overrides of its own keys, overrides for all its runs).

    Raises:
        AnimegenError: for words that a study cannot take.
    """
    _register()
    mine = schema_keys("study")
    known = [*mine, *schema_keys("train"), *list_groups()]
    instead = {"seed": "seeds=[...]", "experiment": "experiments=[...]", "ablation": "ablations=[...]"}
    name = ""
    own: list[str] = []
    common: list[str] = []
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if word.startswith("-"):
            raise AnimegenError(f"A study takes no option {word}: it runs the whole grid, each run in its process.")
        if key == "study":
            name = word.partition("=")[2]
        elif key in instead:
            raise AnimegenError(f"A study sets {key} for each run: use {instead[key]} instead of '{word}'.")
        elif key == "resume":
            raise AnimegenError("A study resumes by itself whatever is unfinished: leave out resume=.")
        elif key.partition(".")[0] not in known:
            raise AnimegenError(f"'{key}' is a key neither of studies nor of runs.{did_you_mean(key, known)}")
        else:
            (own if key.partition(".")[0] in mine else common).append(word)
    return name, own, common


# --- Expansion -----------------------------------------------------------------------------------------------------


def expand(config: DictConfig, common: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a study: experiments x changes.

    Args:
        config: see ``conf/study.yaml``.
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
    rows: list[Row] = []
    for experiment in config.experiments:
        words = [f"experiment={experiment}", *config.overrides]
        # What a change says beats the study, and what the user says beats both.
        rows += [
            Row(_title(titles.get(experiment, ""), change.name), (*words, *change.overrides, *common))
            for change in changes(config, [*words, *common])
        ]
    names = [row.name for row in rows]
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise AnimegenError(f"Two rows of the study are called '{twice}': rename or leave out one of the changes.")
    if config.baseline is not None and config.baseline not in names:
        raise AnimegenError(
            f"baseline={config.baseline} is no row of the study.{did_you_mean(config.baseline, names)}"
            f" It has: {', '.join(names)}."
        )
    return rows


def changes(config: DictConfig, words: Sequence[str]) -> list[Ablation]:
    """Return what a study changes in an experiment: ablations of the catalogues, its variants, and terms left out.

    Args:
        config: see ``conf/study.yaml``.
        words: overrides that compose the experiment.
    """
    chosen = [[value] if isinstance(value, str) else list(value) for value in config.ablations]
    short = _short_names([name for names in chosen for name in names])
    named = [Ablation("+".join(short[name] for name in names), (f"ablation={_option(names)}",)) for names in chosen]
    own = [*read_changes(OmegaConf.to_container(config.variants), "The study's variants").items()]  # type: ignore[arg-type]
    if config.leave_one_out:
        own += leave_one_out(config.leave_one_out, words).items()
    return [*named, *(Ablation(name, overrides) for name, overrides in own)]


def leave_one_out(objective: str, words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return a change per term of an objective of the composed configuration, ``{no_<term>: (override,)}``.

    Terms that are not there anyway (``null``, or of weight 0) have none.

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
        raise AnimegenError(f"leave_one_out={objective}: that objective has only one term, so nothing can be left out.")
    return {f"no_{term}": (f"~model.objectives.{objective}.{term}",) for term in terms}


def plan_runs(rows: Sequence[Row], seeds: Sequence[int], folder: Path) -> list[Run]:
    """Return the runs of all rows, a seed after the other, so that each row has a result early.

    Every configuration is composed now, so that a mistake is told before anything runs.
    """
    planned = []
    for seed in seeds:
        for row in rows:
            words = (*row.words, f"seed={seed}")
            try:
                check_ablations(words)
                config = json.loads(json.dumps(plain(compose_config("train", words)), default=str))
            except AnimegenError as error:
                raise AnimegenError(f"The row '{row.name}' of the study cannot be composed: {error}") from error
            planned.append(Run(row.name, seed, folder / row.name.replace("/", "_") / f"seed{seed}", words, config))
    return planned


def _option(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]"


def _title(experiment: str, change: str) -> str:
    parts = [part for part in (experiment, change) if part and part != "none"]
    return "+".join(parts) or "plain"


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Return the last part of each name, or all of it where two would be the same."""
    names = list(dict.fromkeys(names))
    last = {name: name.rpartition("/")[2] for name in names}
    return {name: short if list(last.values()).count(short) == 1 else name for name, short in last.items()}


# --- What is missing -----------------------------------------------------------------------------------------------


def missing_words(run: Run, overwrite: bool = False) -> tuple[str, ...] | None:
    """Return the overrides that bring a run to its end, or ``None`` if it has finished.

    A run with a checkpoint is resumed; one without begins again.

    Raises:
        AnimegenError: if its folder holds a run of another configuration, which nobody asked to replace.
    """
    output = f"output={_path(run.folder)}"
    if overwrite or not has_record(run.folder):
        return (*run.words, output, *(["overwrite=true"] if overwrite else []))
    record = read_record(run.folder)
    if record.get("status") != "finished" and not can_resume(run.folder):
        return (*run.words, output, "overwrite=true")  # it trained nothing, whatever its configuration was
    differing = differences({"there": _what(record.get("config", {})), "asked": _what(run.config)})
    if differing:
        key, values = next(iter(differing.items()))
        raise AnimegenError(
            f"'{run.folder}' holds a run of another configuration ({key} is {values.get('there', 'absent')} there and"
            f" {values.get('asked', 'absent')} now): choose another output=, or train all again with overwrite=true."
        )
    if record.get("status") == "finished":
        return None
    return (*run.words, f"resume={_path(run.folder)}")  # what they name may be built, whatever the record says


def can_resume(folder: Path) -> bool:
    """Tell whether ``resume=`` brings an unfinished run to its end, be it that only its evaluation is left."""
    return (folder / "checkpoints" / "last.ckpt").is_file()


def _what(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in CIRCUMSTANCES}


# --- The verb ------------------------------------------------------------------------------------------------------


def run_study(words: Sequence[str]) -> int:
    """Run ``animegen train study=<name> ...``; return the exit code, 1 if a run failed."""
    if any(word in ("-h", "--help") for word in words):
        print(HELP)
        return 0
    name, own, common = split_words(words)
    config = compose_study(name, own)
    if config.jobs < 1:
        raise AnimegenError(f"jobs must be at least 1, got {config.jobs}.")
    folder = Path(config.output) if config.output else Path("runs") / "study" / name
    rows = expand(config, common)
    runs = plan_runs(rows, config.seeds, folder)
    if config.dry_run:
        for task in make_tasks(runs, config.overwrite, jobs.share_machine(config.jobs)[0].threads):
            print(shlex.join(["animegen", *task.command[4:]]))
        return 0
    with locked(folder) as lock:
        slots = jobs.share_machine(config.jobs)
        tasks = make_tasks(runs, config.overwrite, slots[0].threads)
        _write_record(folder, name, config, rows, runs, words)
        print(f"study {name}: {len(rows)} rows, {len(config.seeds)} seeds, {len(tasks)} of {len(runs)} runs to do")
        try:
            failed = jobs.run_all(tasks, slots, lock)
        except KeyboardInterrupt:
            print("animegen: stopped; the same command goes on where this one ended.", file=sys.stderr)
            raise
    for failure in failed:
        print(f"failed: {failure.task.name}: {failure.reason} (log: {failure.task.log})", file=sys.stderr)
    if failed:
        print(
            f"animegen: {len(failed)} of {len(runs)} runs failed; the same command tries them again.", file=sys.stderr
        )
    print(f"the comparison: animegen compare study={name}" + (f" {shlex.quote(str(folder))}" if config.output else ""))
    return 1 if failed else 0


def _path(folder: Path) -> str:
    """Return a path as Hydra takes it, with quotes only where it needs them."""
    return str(folder) if re.fullmatch(r"[\w./+-]+", str(folder)) else quoted(folder)


def make_tasks(runs: Sequence[Run], overwrite: bool, threads: int) -> list[jobs.Task]:
    """Return the commands that do what is missing of the runs."""
    tasks = []
    for run in runs:
        words = missing_words(run, overwrite)
        if words is None:
            continue
        if not any(word.startswith("threads=") for word in words):
            words = (*words, f"threads={threads}")
        command = jobs.train_command(words)
        tasks.append(
            jobs.Task(f"{run.row}, seed {run.seed}", command, run.folder / "log.txt", run.config["train_steps"])
        )
    return tasks


def _write_record(
    folder: Path, name: str, config: DictConfig, rows: Sequence[Row], runs: Sequence[Run], words: Sequence[str]
) -> None:
    """Write what ``animegen compare`` needs to know of the study."""
    kept = {
        key: OmegaConf.to_container(config[key]) if OmegaConf.is_config(config[key]) else config[key]
        for key in ("question", "baseline", "metrics", "samples")
    }
    record = {
        "study": name,
        **kept,
        "command": shlex.join(["animegen", "train", *words]),
        "seeds": list(config.seeds),
        "rows": [asdict(row) for row in rows],
        "runs": [
            {"row": run.row, "seed": run.seed, "folder": run.folder.relative_to(folder).as_posix()} for run in runs
        ],
    }
    unfinished = folder / f"{RECORD}.unfinished"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(unfinished, folder / RECORD)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise AnimegenError(f"'{folder}' cannot be written ({error.strerror}): choose another output=.") from error
