"""Show a comparison of runs: terminal, report.html, tables, images, and the README of a study."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from animegen.files import read_text
from animegen.reports import tables
from animegen.reports.output import check_free, check_report_folder, write_files
from animegen.reports.page import Section, page
from animegen.reports.readme import BEGIN, small_jpeg, write_results
from animegen.reports.runs import RunFolder
from animegen.reports.sections import differing, gallery, make_sections

#: The largest number of differing settings that are listed.
LARGEST_DIFFERENCE = 40


@dataclass(frozen=True)
class Comparison:
    """Runs to compare, and how to show them.

    Attributes:
        title: of the report.
        question: that the runs answer; may be empty.
        commands: that made the runs.
        rows: the runs by row.
        report: folder of the report.
        record: folder of the study's README, if it is written.
        settings: ``baseline``, ``metrics``, ``samples``.
        own_folder: the report replaces an earlier one in a folder of its own, rather than one that a user named.
    """

    title: str
    question: str
    commands: list[str]
    rows: dict[str, list[RunFolder]]
    report: Path
    record: Path | None
    settings: Mapping[str, Any]
    own_folder: bool = True


def show_comparison(comparison: Comparison, overwrite: bool = False) -> None:
    """Print a comparison and write its report, and its part of the study's README.

    Args:
        comparison: the runs.
        overwrite: also replace files that do not belong to an earlier report.

    Raises:
        AnimegenError: if a folder cannot be written.
    """
    if comparison.own_folder and not overwrite:
        check_report_folder(comparison.report)
    sections = make_sections(comparison.rows, comparison.settings)
    console = Console(highlight=False)
    for section in sections:
        console.print(tables.terminal(section.summary, section.title))
    _report_unfinished(comparison.rows)
    unequal = differing(comparison.rows)
    if not sections:
        print("No run has scores: finish one with animegen train resume=<run>.", file=sys.stderr)
    elif comparison.record is None:
        for group in unequal:
            if 0 < len(group.changed) <= LARGEST_DIFFERENCE:
                print(f"{', '.join(group.names)} differ in: {', '.join(group.changed)}")
    _write_report(comparison, sections, comparison.own_folder or overwrite)
    print(f"report: {comparison.report / 'report.html'}")
    if comparison.record and sections:
        write_record(comparison, sections, overwrite)
        print(f"results: {comparison.record / 'README.md'}")


def _report_unfinished(rows: Mapping[str, Sequence[RunFolder]]) -> None:
    for name, runs in rows.items():
        for each in runs:
            if each.status != "finished":
                error = each.record.get("error")
                print(f"{name}, seed {each.seed}: {each.status}{f': {error}' if error else ''}", file=sys.stderr)


def _write_report(comparison: Comparison, sections: Sequence[Section], overwrite: bool) -> None:
    """Write all files of the report; they appear when all are complete, and other files stay."""
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
        files.update({name: image.data for name, image in section.images.items()})
    write_files(comparison.report, files, overwrite)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # file names need not be valid UTF-8


def _section_markdown(section: Section) -> str:
    text = tables.markdown(section.summary)
    if 0 < sum(len(group.changed) + len(group.partial) for group in section.differing) <= LARGEST_DIFFERENCE:
        text += f"\nDifferences between the configurations:\n\n{tables.differences_markdown(section.differing)}"
    return text


def write_record(comparison: Comparison, sections: Sequence[Section], overwrite: bool = False) -> None:
    """Write the table and images into the study's README, the images as small JPEG files next to it."""
    assert comparison.record is not None
    study = comparison.title.removeprefix("Study ")
    compare_words = shlex.join(["animegen", "compare", f"study={study}"])
    text = [*(f"    {command}" for command in comparison.commands), f"    {compare_words}", ""]
    files: dict[str, bytes] = {"results.csv": _encoded("\n".join(tables.csv_text(s.summary) for s in sections))}
    machine = _machine([each for group in comparison.rows.values() for each in group])
    for section in sections:
        text += [f"### {section.title}", ""] if len(sections) > 1 else []
        text += [tables.markdown(section.summary)]
        for name, image in section.images.items():
            still = image.kind != "gif"
            small = f"{Path(name).stem}.jpg" if still else name
            files[small] = small_jpeg(image.data) if still else image.data
            text += [f"![{image.caption}]({small})", ""]
    text += [machine]
    readme = comparison.record / "README.md"
    is_ours = readme.is_file() and BEGIN in read_text(readme)  # with earlier results
    if not is_ours and not overwrite:
        check_free(comparison.record, list(files))
    write_results(readme, comparison.question or comparison.title, "\n".join(text))
    write_files(comparison.record, files, overwrite=True)


def _machine(runs: Sequence[RunFolder]) -> str:
    """Return a line about the machine and the training time of the finished runs."""
    done = [each.record for each in runs if each.evaluation is not None]
    machine, versions = done[0].get("machine") or {}, done[0].get("versions") or {}
    seconds = [record["seconds"]["total"] for record in done if "total" in (record.get("seconds") or {})]
    where = ", ".join(machine.get("cuda", [])) or f"CPU with {machine.get('cores', '?')} cores"
    took = f", {min(seconds):.0f} to {max(seconds):.0f} s each" if seconds else ""
    return f"{len(done)} runs on {where}{took}; torch {versions.get('torch', '?')}."
