"""``animegen compare``: one table, plots, pictures and differences of many runs, or of a study, or of one run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from animegen.cli.main import run
from animegen.config.compose import compose_config
from animegen.engine.runs import literal_paths
from animegen.errors import AnimegenError
from animegen.files import exists_error, read_text, user_path
from animegen.launch.study import RECORD, compose_study, find_study, list_studies
from animegen.reports import tables
from animegen.reports.output import check_free, check_report_folder, write_files
from animegen.reports.page import Section, page
from animegen.reports.readme import BEGIN, small_jpeg, write_results
from animegen.reports.runs import RunFolder, find_runs, group_seeds, load_run
from animegen.reports.sections import differing, gallery, make_sections

HELP = """animegen compare study=<name> | <runs ...> [key=value ...]

  animegen compare study=toy                     what animegen train study=toy has trained; also into its README
  animegen compare runs/a runs/b                 any runs: run folders, folders that hold runs, patterns
  animegen compare 'runs/animegan/*' metrics=[ssim,psnr] baseline=animegan/quickstart
  animegen compare runs/a                        the report of one run

Writes report.html (one file, nothing is loaded from elsewhere), table.md, table.csv and the pictures.
Runs that differ in the seed only are one row: mean and spread.

output     folder of the report: report/ in the study or single run, else runs/compare/<time>
record     with study=: folder of its README (experiments/<name>), whose part between the lines
           <!-- results --> and <!-- /results --> is replaced; none leaves it alone
baseline   the row that differences are taken against    metrics  the metrics to show
samples    the test samples to show                      overwrite=true replaces what is in output="""

LARGEST_DIFFERENCE = 40


@dataclass
class CompareSchema:
    """Keys of ``animegen compare``, besides ``study=``."""

    output: str | None = None
    record: str | None = None
    baseline: str | None = None
    metrics: list[str] | None = None
    samples: list[int] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how it is shown.

    Attributes:
        title: of the report.
        question: what was to be found out; may be empty.
        commands: what made the runs.
        rows: the runs by row.
        report: folder of the report.
        record: folder of the study's README, if that is to be written.
        settings: ``baseline``, ``metrics``, ``samples``.
    """

    title: str
    question: str
    commands: list[str]
    rows: dict[str, list[RunFolder]]
    report: Path
    record: Path | None
    settings: Mapping[str, Any]


def compare(words: Sequence[str]) -> Path:
    """Run the verb; return the folder of the report."""
    paths = [word for word in words if "=" not in word or Path(word).exists()]
    ConfigStore.instance().store(group="schema", name="compare", node=CompareSchema, package="_global_")
    # Not an override: study is the name of a configuration group.
    study = next((word.partition("=")[2] for word in words if word.startswith("study=")), None)
    overrides = [word for word in words if word not in paths and not word.startswith("study=")]
    config = compose_config("compare", literal_paths(overrides, ("output", "record")))
    comparison = _of_study(config, study, paths) if study or _is_study(paths) else _of_runs(config, paths)
    if config.output is not None:
        report = user_path("output", config.output)
        if report.exists() and (not report.is_dir() or any(report.iterdir())) and not config.overwrite:
            raise exists_error(report)
        comparison = replace(comparison, report=report)
    elif not config.overwrite:
        check_report_folder(comparison.report)
    sections = make_sections(comparison.rows, comparison.settings)
    console = Console(highlight=False)
    for section in sections:
        console.print(tables.terminal(section.summary, section.title))
    _tell_unfinished(comparison.rows)
    unequal = differing(comparison.rows)
    if not sections:
        print("No run has scores: animegen train resume=<run> finishes one.", file=sys.stderr)
    elif comparison.record is None:
        for group in unequal:
            if 0 < len(group.changed) <= LARGEST_DIFFERENCE:
                print(f"{', '.join(group.names)} differ in: {', '.join(group.changed)}")
    _write_report(comparison, sections, config.output is None or config.overwrite)
    print(f"the report: {comparison.report / 'report.html'}")
    if comparison.record and sections:
        write_record(comparison, sections, config.overwrite)
        print(f"the results are in {comparison.record / 'README.md'}, too")
    return comparison.report


def _is_study(paths: Sequence[str]) -> bool:
    return len(paths) == 1 and (Path(paths[0]) / RECORD).is_file()


def _of_study(config: DictConfig, study: str | None, paths: Sequence[str]) -> Comparison:
    if len(paths) > 1:
        raise AnimegenError("A study has one folder: animegen compare study=<name> [folder].")
    if study and not paths:
        find_study(study)
    folder = user_path("study folder", paths[0]) if paths else Path(f"runs/study/{study}")
    try:
        record = json.loads(read_text(folder / RECORD))
    except AnimegenError as error:
        if (folder / RECORD).exists():
            raise
        raise AnimegenError(
            f"The study '{study}' has no runs in '{folder}': first animegen train study={study}"
            " (if that had an output=, name that folder after study=)."
        ) from error
    except ValueError as error:
        raise AnimegenError(f"'{folder / RECORD}' cannot be read ({error}): run the study again.") from error
    name = record["study"]
    if study not in (None, name):
        raise AnimegenError(f"'{folder}' holds the study '{name}', not '{study}': name another folder.")
    shown = {key: record.get(key) for key in ("question", "baseline", "metrics", "samples")}
    if name in list_studies():  # what is shown may be changed after the runs
        now = compose_study(name)
        shown = {key: _plain(now[key]) for key in shown}
    rows: dict[str, list[RunFolder]] = {}
    for entry in record["runs"]:
        where = folder / entry["folder"]
        there = (where / "run.json").is_file()
        missing = {"status": "not run", "config": {"seed": entry["seed"]}}
        rows.setdefault(entry["row"], []).append(load_run(where) if there else RunFolder(where, missing))
    if config.record == "none" or not (study or config.record):
        target = None
    else:
        target = _record_folder(name) if config.record is None else user_path("record", config.record)
    return Comparison(
        title=f"Study {name}",
        question=shown["question"] or "",
        commands=[record["command"]],
        rows=rows,
        report=folder / "report",
        record=target,
        settings=_settings(config, shown),
    )


def _record_folder(name: str) -> Path:
    """Return ``experiments/<name>`` beside the study's file, or in the current folder for a study of the package."""
    path = find_study(name)
    root = path.parents[len(Path(name).parts)]
    return root / name if root.name == "experiments" else Path("experiments") / name


def _settings(config: DictConfig, otherwise: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: _plain(config[key]) for key in ("baseline", "metrics", "samples")}
    return {key: value if value is not None else otherwise.get(key) for key, value in given.items()}


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _of_runs(config: DictConfig, paths: Sequence[str]) -> Comparison:
    if not paths:
        raise AnimegenError("Name what to compare: animegen compare study=<name>, or run folders; see --help.")
    if config.record:
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
        settings=_settings(config, {}),
    )


def _tell_unfinished(rows: Mapping[str, Sequence[RunFolder]]) -> None:
    for name, runs in rows.items():
        for each in runs:
            if each.status != "finished":
                error = each.record.get("error")
                print(f"{name}, seed {each.seed}: {each.status}{f': {error}' if error else ''}", file=sys.stderr)


def _write_report(comparison: Comparison, sections: Sequence[Section], overwrite: bool) -> None:
    """Write all files of the report; each appears when all are complete, and others in the folder stay."""
    runs = [each for group in comparison.rows.values() for each in group]
    more = gallery(runs[0]) if len(runs) == 1 else []
    unscored = [] if sections else differing(comparison.rows)
    html = page(comparison.title, comparison.question, comparison.commands, sections, comparison.rows, more, unscored)
    files: dict[str, bytes] = {
        "report.html": _encoded(html),
        "table.md": _encoded("\n".join(f"## {s.title}\n\n{_section_markdown(s)}" for s in sections)),
        "table.csv": _encoded("\n".join(tables.csv_text(section.summary) for section in sections)),
    }
    for section in sections:
        files.update({name: picture.data for name, picture in section.pictures.items()})
    write_files(comparison.report, files, overwrite)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # file names need not be valid UTF-8


def _section_markdown(section: Section) -> str:
    text = tables.markdown(section.summary)
    if 0 < sum(len(group.changed) + len(group.partial) for group in section.differing) <= LARGEST_DIFFERENCE:
        text += f"\nDifferences between the configurations:\n\n{tables.differences_markdown(section.differing)}"
    return text


def write_record(comparison: Comparison, sections: Sequence[Section], overwrite: bool = False) -> None:
    """Write table and pictures into the study's README, the pictures as small JPEGs beside it."""
    assert comparison.record is not None
    study = comparison.title.removeprefix("Study ")
    compare_words = shlex.join(["animegen", "compare", f"study={study}"])
    text = [*(f"    {command}" for command in comparison.commands), f"    {compare_words}", ""]
    files: dict[str, bytes] = {"results.csv": _encoded("\n".join(tables.csv_text(s.summary) for s in sections))}
    machine = _machine([each for group in comparison.rows.values() for each in group])
    for section in sections:
        text += [f"### {section.title}", ""] if len(sections) > 1 else []
        text += [tables.markdown(section.summary)]
        for name, picture in section.pictures.items():
            still = picture.kind != "gif"
            small = f"{Path(name).stem}.jpg" if still else name
            files[small] = small_jpeg(picture.data) if still else picture.data
            text += [f"![{picture.caption}]({small})", ""]
    text += [machine]
    readme = comparison.record / "README.md"
    is_ours = readme.is_file() and BEGIN in read_text(readme)  # earlier results lie beside it
    if not is_ours and not overwrite:
        check_free(comparison.record, list(files))
    write_results(readme, comparison.question or comparison.title, "\n".join(text))
    write_files(comparison.record, files, overwrite=True)


def _machine(runs: Sequence[RunFolder]) -> str:
    """Return a line about where and how long the finished runs were trained."""
    done = [each.record for each in runs if each.evaluation is not None]
    machine, versions = done[0].get("machine") or {}, done[0].get("versions") or {}
    seconds = [record["seconds"]["total"] for record in done if "total" in (record.get("seconds") or {})]
    where = ", ".join(machine.get("cuda", [])) or f"CPU with {machine.get('cores', '?')} cores"
    took = f", {min(seconds):.0f} to {max(seconds):.0f} s each" if seconds else ""
    return f"{len(done)} runs on {where}{took}; torch {versions.get('torch', '?')}."


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen compare`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return
        compare(words)

    return run(body)
