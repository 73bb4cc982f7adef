"""The report as one self-contained HTML file: the results first, then how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from animegen.benchmarks.wide_table import NAME, Column, WideTable, wrapped
from animegen.reports.differences import Differences
from animegen.reports.elements import SCRIPT, STYLE, VIEW, EmbeddedImage, Figure, Pair
from animegen.reports.runs import RunFolder
from animegen.reports.summary import Summary
from animegen.reports.tables import heading, label, notes, parts, short

#: Marks a page that a later report may replace.
GENERATOR = '<meta name="generator" content="animegen">'
#: Characters per line of the page.
WIDTH = 88
#: Runs per table of texts.
COLUMNS = 6
#: What the images above the scores are called.
FIRST = ("strip", "clips")


@dataclass(frozen=True)
class Section:
    """The results of runs with the same benchmark.

    Attributes:
        title: its heading.
        summary: the figures.
        differing: differences between the configurations of the rows.
        images: plots and image strips by file name; those of `FIRST` stand above the scores.
        pairs: inputs and outputs of photos.
    """

    title: str
    summary: Summary
    differing: Sequence[Differences]
    images: dict[str, EmbeddedImage] = field(default_factory=dict)
    pairs: Sequence[Pair] = ()


def page(
    title: str,
    question: str,
    commands: Sequence[str],
    sections: Sequence[Section],
    runs: Mapping[str, Sequence[RunFolder]],
    gallery: Sequence[Figure] = (),
    differing: Sequence[Differences] = (),
) -> str:
    """Return the report.

    Args:
        title: of the report.
        question: that the runs answer; may be empty.
        commands: that made the runs.
        sections: one for each benchmark.
        runs: all runs by row, also those without scores.
        gallery: losses and previews, for the report of one run.
        differing: differences between the configurations, where no section has them.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if question:
        body.append(f'<p class="question">{escape(question)}</p>')
    for section in sections:
        body += _section(section)
    if gallery:
        body += ["<h2>During training</h2>", *(figure.html() for figure in gallery)]
    body += ["<h2>Runs</h2>", _runs(runs)]
    body += [f"<p><code>{escape(command)}</code></p>" for command in commands]
    every = [*differing, *(group for section in sections for group in section.differing)]
    body += _differences(every)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{GENERATOR}\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + f"\n{VIEW}\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(section: Section) -> list[str]:
    summary = section.summary
    first = [image for name, image in section.images.items() if name.startswith(FIRST)]
    body = [f"<h2>{escape(section.title)}</h2>", *(image.html() for image in first), _scores(summary)]
    body.append(f"<p><small>{escape(' '.join(notes(summary)))}</small></p>")
    items = "".join(
        f"<li><b>{escape(heading(name, info))}</b>: {escape(info.description)}</li>"
        for name, info in summary.metrics.items()
    )
    body.append(f"<details><summary>What the metrics mean</summary><ul>{items}</ul></details>")
    if section.pairs:
        pairs = [pair.html() for pair in section.pairs]
        body += ["<h3>Before and after</h3>", '<div class="pairs">', *pairs, "</div>"]
    return body + [image.html() for image in section.images.values() if image not in first]


def _scores(summary: Summary) -> str:
    """Return the scores: a line per metric, a column per row of the summary; split into several tables if too wide."""
    columns, shown = [], {}
    for row in sorted(summary.rows, key=lambda row: row.trivial):
        texts, cells = [], []
        for metric in summary.metrics:
            mean, spread, difference = (escape(part) for part in parts(summary, row, metric))
            best = not row.trivial and summary.best(metric) == row.name
            second = f"<br><small>{difference}</small>" if difference else ""
            texts.append(f"{mean} {spread}\n{difference}")
            cells.append(f"<td>{f'<b>{mean}</b>' if best else mean} <small>{spread}</small>{second}</td>")
        columns.append(Column(wrapped(row.name, NAME), texts, dim=row.trivial))
        shown[id(columns[-1])] = (f"<th>{escape(label(row))}</th>", cells)
    names = [escape(heading(name, info)) for name, info in summary.metrics.items()]
    repeat = bool(columns) and not columns[0].dim
    tables = []
    for block in WideTable(Column("", names), columns, repeat=repeat).blocks(WIDTH):
        heads, cells = zip(*(shown[id(column)] for column in block), strict=True)
        lines = [f"<tr><td>{name}</td>{''.join(row)}</tr>" for name, *row in zip(names, *cells, strict=True)]
        tables.append(_table(f"<th></th>{''.join(heads)}", lines))
    return "\n".join(tables)


def _differences(differing: Sequence[Differences]) -> list[str]:
    """Return the differences between configurations, folded; keys that some runs lack are folded once more."""
    body = []
    for group in differing:
        if group.changed:
            body.append(_keys(group.changed, group.names))
        if group.partial:
            count = f"{len(group.partial)} keys" if len(group.partial) > 1 else "1 key"
            body.append(f"<details><summary>{count} that some runs lack</summary>")
            body += [_keys(group.partial, group.names), "</details>"]
    opening = "<details><summary>Differences between the configurations</summary>"
    return [opening, *body, "</details>"] if body else []


def _keys(found: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    tables = []
    for start in range(0, len(names), COLUMNS):
        part = names[start : start + COLUMNS]
        lines = []
        for key, values in found.items():
            cells = [
                f"<td>{escape(short(values[name]))}</td>" if name in values else '<td class="absent">absent</td>'
                for name in part
            ]
            lines.append(f"<tr><td><code>{escape(key)}</code></td>{''.join(cells)}</tr>")
        tables.append(_table("<th>key</th>" + "".join(f"<th>{escape(name)}</th>" for name in part), lines, "text"))
    return "\n".join(tables)


def _runs(rows: Mapping[str, Sequence[RunFolder]]) -> str:
    heads = ("row", "seed", "status", "train step", "time", "commit", "folder", "error")
    lines: list[list[str]] = []
    for name, runs in rows.items():
        for run in runs:
            record = run.record
            good = run.status == "finished"
            seconds = (record.get("seconds") or {}).get("total")
            commit = ((record.get("git") or {}).get("commit") or "")[:9]
            error = short(record.get("error", ""), 200)
            lines.append(
                [
                    f"<td>{escape(name)}</td>",
                    f"<td>{escape(str(run.seed if run.seed is not None else ''))}</td>",
                    f"<td>{escape(run.status)}</td>" if good else f'<td class="bad">{escape(run.status)}</td>',
                    f"<td>{escape(str(record.get('train_step', '')))}</td>",
                    f"<td>{'' if seconds is None else f'{seconds:.0f} s'}</td>",
                    f"<td><code>{escape(commit)}</code></td>" if commit else "<td></td>",
                    f"<td><code>{escape(str(run.folder))}</code></td>",
                    f'<td class="bad">{escape(error)}</td>' if error else "<td></td>",
                ]
            )
    used = [place for place in range(len(heads)) if any(line[place] != "<td></td>" for line in lines)]
    table = ["<tr>" + "".join(line[place] for place in used) + "</tr>" for line in lines]
    return _table("".join(f"<th>{heads[place]}</th>" for place in used), table, "text")


def _table(head: str, lines: Sequence[str], kind: str = "") -> str:
    opening = f'<table class="{kind}">' if kind else "<table>"
    body = "\n".join(lines)
    return f'<div class="scroll">{opening}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
