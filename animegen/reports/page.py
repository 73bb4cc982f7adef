"""The report as one self-contained HTML file without scripts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from animegen.benchmarks.wide_table import NAME, Column, WideTable, wrapped
from animegen.reports.differences import Differences
from animegen.reports.runs import RunFolder
from animegen.reports.summary import Summary
from animegen.reports.tables import heading, label, notes, parts, short

#: Marks a page that a later report may replace.
GENERATOR = '<meta name="generator" content="animegen">'
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff; }
h1 { font-size: 1.6em; margin-bottom: 0.2em; } h2 { font-size: 1.25em; margin-top: 2em; }
h3 { font-size: 1.05em; margin-top: 1.6em; } p.question { font-size: 1.1em; color: #444; margin-top: 0; }
code { background: #f2f2f2; padding: 0.1em 0.3em; border-radius: 3px; font-size: 0.9em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.92em; }
th, td { padding: 0.3em 0.8em; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
thead th { white-space: normal; overflow-wrap: anywhere; min-width: 5em; vertical-align: bottom; }
th:first-child, td:first-child, table.text th, table.text td { text-align: left; }
thead th { border-bottom: 2px solid #999; } tr.trivial { color: #777; } td b { color: #00568a; }
table.text td { vertical-align: top; white-space: normal; overflow-wrap: anywhere; min-width: 6em; }
small { color: #777; } .bad { color: #b00020; } .absent { color: #999; }
img { max-width: 100%; height: auto; } figure { margin: 1em 0; } figcaption { color: #666; font-size: 0.9em; }
.gallery figure { display: inline-block; margin: 0.5em 1em 0.5em 0; vertical-align: top; }
"""

#: Characters per line of the page.
WIDTH = 140
#: Runs per table of texts.
COLUMNS = 6


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in the page: encoded data, kind (``png``, ``jpeg``, ``gif``) and caption."""

    data: bytes
    kind: str
    caption: str


@dataclass(frozen=True)
class Section:
    """The results of runs with the same benchmark.

    Attributes:
        title: its heading.
        summary: the figures.
        differing: differences between the configurations of the rows.
        images: plots and image strips by file name.
    """

    title: str
    summary: Summary
    differing: Sequence[Differences]
    images: dict[str, EmbeddedImage] = field(default_factory=dict)


def page(
    title: str,
    question: str,
    commands: Sequence[str],
    sections: Sequence[Section],
    runs: Mapping[str, Sequence[RunFolder]],
    gallery: Sequence[EmbeddedImage] = (),
    differing: Sequence[Differences] = (),
) -> str:
    """Return the report.

    Args:
        title: of the report.
        question: that the runs answer; may be empty.
        commands: that made the runs.
        sections: one for each benchmark.
        runs: all runs by row, also those without scores.
        gallery: more images, for the report of one run.
        differing: differences between the configurations, where no section shows them.
    """
    body = [f"<h1>{escape(title)}</h1>"]
    if question:
        body.append(f'<p class="question">{escape(question)}</p>')
    body += [f"<p><code>{escape(command)}</code></p>" for command in commands]
    for section in sections:
        body += _section(section)
    if gallery:
        body += ['<h2>During training</h2><div class="gallery">', *map(_figure, gallery), "</div>"]
    body += _differences("h2", differing)
    body += ["<h2>Runs</h2>", _runs(runs)]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{GENERATOR}\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(section: Section) -> list[str]:
    summary = section.summary
    body = [f"<h2>{escape(section.title)}</h2>", _scores(summary)]
    body.append(f"<p><small>{escape(' '.join(notes(summary)))}</small></p>")
    body += [_figure(image) for image in section.images.values()]
    body += _differences("h3", section.differing)
    items = "".join(
        f"<li><b>{escape(heading(name, info))}</b>: {escape(info.description)}</li>"
        for name, info in summary.metrics.items()
    )
    body.append(f"<details><summary>What the metrics mean</summary><ul>{items}</ul></details>")
    return body


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


def _differences(level: str, differing: Sequence[Differences]) -> list[str]:
    """Return the differences between configurations; keys that some runs lack are collapsed."""
    body = [f"<{level}>Differences between the configurations</{level}>"] if differing else []
    for group in differing:
        if group.changed:
            body.append(_keys(group.changed, group.names))
        if group.partial:
            count = f"{len(group.partial)} keys" if len(group.partial) > 1 else "1 key"
            body.append(f"<details><summary>{count} that some runs lack</summary>")
            body += [_keys(group.partial, group.names), "</details>"]
    return body


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
    lines = []
    for name, runs in rows.items():
        for run in runs:
            record = run.record
            good = run.status == "finished"
            seconds = (record.get("seconds") or {}).get("total")
            commit = ((record.get("git") or {}).get("commit") or "")[:9]
            cells = [
                f"<td>{escape(name)}</td><td>{escape(str(run.seed if run.seed is not None else ''))}</td>",
                f"<td>{escape(run.status)}</td>" if good else f'<td class="bad">{escape(run.status)}</td>',
                f"<td>{escape(str(record.get('train_step', '')))}</td>",
                f"<td>{'' if seconds is None else f'{seconds:.0f} s'}</td><td><code>{escape(commit)}</code></td>",
                f"<td><code>{escape(str(run.folder))}</code></td>",
                f'<td class="bad">{escape(short(record.get("error", ""), 200))}</td>',
            ]
            lines.append(f"<tr>{''.join(cells)}</tr>")
    heads = ("row", "seed", "status", "train step", "time", "commit", "folder", "error")
    return _table("".join(f"<th>{head}</th>" for head in heads), lines, "text")


def _table(head: str, lines: Sequence[str], kind: str = "") -> str:
    opening = f'<table class="{kind}">' if kind else "<table>"
    body = "\n".join(lines)
    return f'<div class="scroll">{opening}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _figure(image: EmbeddedImage) -> str:
    data = base64.b64encode(image.data).decode()
    return (
        f'<figure><img alt="{escape(image.caption)}" src="data:image/{image.kind};base64,{data}">'
        f"<figcaption>{escape(image.caption)}</figcaption></figure>"
    )
