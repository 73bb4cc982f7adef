"""Find the runs that ``animegen compare`` compares: those of a study, or any folders of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from animegen.config.compose import plain
from animegen.config.studies import find_study, list_studies
from animegen.engine.runs import has_record
from animegen.errors import AnimegenError
from animegen.files import check_outputs
from animegen.launch.study import RECORD, compose_study, read_study
from animegen.reports.comparison import Comparison
from animegen.reports.options import CompareOptions
from animegen.reports.runs import RunFolder, find_runs, group_seeds, load_run


def find_comparison(options: CompareOptions) -> Comparison:
    """Return the runs that the options select, and where their report goes.

    Raises:
        AnimegenError: if there are no such runs, or the folder of the report holds something already.
    """
    report = None if options.output is None else Path(options.output)
    if report is not None:
        replaces = options.overwrite or (report.is_dir() and not any(report.iterdir()))
        check_outputs([report], replaces, folders=True)
    of_study = options.study is not None or _is_study(options.folders)
    comparison = _of_study(options) if of_study else _of_runs(options)
    return comparison if report is None else replace(comparison, report=report, own_folder=False)


def _is_study(paths: Sequence[str]) -> bool:
    return len(paths) == 1 and (Path(paths[0]) / RECORD).is_file()


def _of_study(options: CompareOptions) -> Comparison:
    study, paths = options.study, options.folders
    if len(paths) > 1:
        raise AnimegenError("A study has one folder: animegen compare study=<name> [folder].")
    if study and not paths:
        find_study(study)
    folder = Path(paths[0] if paths else f"runs/study/{study}")
    if not (folder / RECORD).exists():
        raise AnimegenError(
            f"The study '{study}' has no runs in '{folder}': first animegen train study={study}"
            " (if that had an output=, name that folder after study=)."
        )
    record = read_study(folder)
    name = record["study"]
    if study not in (None, name):
        raise AnimegenError(f"'{folder}' contains the study '{name}', not '{study}': name another folder.")
    shown = {key: record.get(key) for key in ("question", "baseline", "metrics", "samples")}
    if name in list_studies():  # the file may have changed since the runs
        now = plain(compose_study(name))
        shown = {key: now[key] for key in shown}
    rows: dict[str, list[RunFolder]] = {}
    for entry in record["runs"]:
        where = folder / entry["folder"]
        there = has_record(where)
        missing = {"status": "not run", "config": {"seed": entry["seed"]}}
        rows.setdefault(entry["row"], []).append(load_run(where) if there else RunFolder(where, missing))
    if options.record == "none" or not (study or options.record):
        target = None
    else:
        target = Path(options.record) if options.record else _record_folder(name)
    return Comparison(
        title=f"Study {name}",
        question=shown["question"] or "",
        commands=[record["command"]],
        rows=rows,
        report=folder / "report",
        record=target,
        settings=_settings(options, shown),
    )


def _record_folder(name: str) -> Path:
    """Return ``experiments/<name>`` next to the study file, or in the current folder for a study of the package."""
    path = find_study(name)
    root = path.parents[len(Path(name).parts)]
    return root / name if root.name == "experiments" else Path("experiments") / name


def _settings(options: CompareOptions, otherwise: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: getattr(options, key) for key in ("baseline", "metrics", "samples")}
    return {key: value if value is not None else otherwise.get(key) for key, value in given.items()}


def _of_runs(options: CompareOptions) -> Comparison:
    paths = options.folders
    if not paths:
        raise AnimegenError("Name the runs to compare: animegen compare study=<name>, or run folders; see --help.")
    if options.record:
        raise AnimegenError("record= is for studies: animegen compare study=<name> record=<folder>.")
    found = find_runs(paths)
    single = len(found) == 1
    now = datetime.now().strftime("%Y%m%d-%H%M%S")
    rows = group_seeds(found)
    return Comparison(
        title=f"Run {found[0].folder}" if single else f"{len(found)} runs",
        question="",
        commands=[found[0].record["command"]] if single and "command" in found[0].record else [],
        rows=rows,
        report=found[0].folder / "report" if single else Path("runs") / "compare" / now,
        record=None,
        settings=_settings(options, {}),
    )
