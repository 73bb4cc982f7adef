"""The scores of a comparison as Markdown, CSV, and on the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from animegen.benchmarks.registry import MetricInfo
from animegen.benchmarks.wide_table import METRIC, NAME, Column, WideTable, wrapped
from animegen.reports.differences import Differences
from animegen.reports.summary import Summary, TableRow

ARROWS = {"higher": "↑", "lower": "↓", "none": ""}


def heading(metric: str, info: MetricInfo) -> str:
    """Return a metric's name with unit and direction."""
    return " ".join(part for part in (metric, f"({info.unit})" if info.unit else "", ARROWS[info.better]) if part)


def parts(summary: Summary, row: TableRow, metric: str) -> tuple[str, str, str]:
    """Return the texts of a cell: mean, spread, and difference to the baseline; ``""`` where one is missing."""
    digits, cell = summary.metrics[metric].digits, row.cells[metric]
    if cell.mean is None:
        return "–", "", ""
    shown = cell.spread is not None and (not row.trivial or round(cell.spread, digits) > 0)
    spread = f"±{cell.spread:.{digits}f}" if shown else ""
    difference = summary.difference(row, metric)
    if difference is None:
        return f"{cell.mean:.{digits}f}", spread, ""
    unclear = "≈ " if summary.is_clear(row, metric) is False else ""
    return f"{cell.mean:.{digits}f}", spread, f"{unclear}{round(difference, digits) + 0.0:+.{digits}f}"


def label(row: TableRow) -> str:
    """Return a row's name with its marks."""
    return row.name + ("*" if row.privileged else "") + (f" ({row.note})" if row.note else "")


def notes(summary: Summary) -> list[str]:
    """Return the notes below the table."""
    runs = max((len(cell.values) for row in summary.trained() for cell in row.cells.values()), default=0)
    said = [f"{summary.samples} test samples."]
    if runs > 1:
        said.append(
            "Mean ± standard deviation over the seeds. Bold: best by more than the spread (the root of the sum of both"
            " variances)."
        )
    else:
        said.append("One seed: no spread, so nothing is marked as best.")
    if len(summary.trained()) > 1:
        said.append(
            f"Signed numbers: difference to {summary.baseline}" + ("; ≈: within the spread." if runs > 1 else ".")
        )
    if any(row.privileged for row in summary.rows):
        said.append("*: made with the truth (drawings of the photos, or motion), for reference only.")
    return said


def markdown(summary: Summary) -> str:
    """Return the table as Markdown, trivial baselines first; ends with a newline."""
    lines = [
        "| | " + " | ".join(heading(name, info) for name, info in summary.metrics.items()) + " |",
        "|---|" + "---:|" * len(summary.metrics),
    ]
    for row in summary.rows:
        cells = []
        for metric in summary.metrics:
            mean, spread, difference = parts(summary, row, metric)
            mean = f"**{mean}**" if summary.best(metric) == row.name and not row.trivial else mean
            cells.append(" ".join(part for part in (mean, spread, f"({difference})" if difference else "") if part))
        name = label(row).replace("|", "\\|").replace("*", "\\*")
        lines.append(f"| {f'*{name}*' if row.trivial else name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", " ".join(notes(summary)).replace("*:", "\\*:")]) + "\n"


def csv_text(summary: Summary) -> str:
    """Return the scores as CSV, a line per row and metric, in full precision."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["row", "kind", "metric", "unit", "better", "runs", "mean", "spread", "difference", "best", "values"]
    )
    for row in summary.rows:
        for metric, info in summary.metrics.items():
            cell = row.cells[metric]
            best = not row.trivial and summary.best(metric) == row.name
            figures = (cell.mean, cell.spread, summary.difference(row, metric))
            writer.writerow(
                [
                    *(row.name, "baseline" if row.trivial else "model", metric, info.unit, info.better),
                    *(len(cell.values), *("" if value is None else repr(value) for value in figures)),
                    *("yes" if best else "", " ".join(map(repr, cell.values))),
                ]
            )
    return buffer.getvalue()


def terminal(summary: Summary, title: str) -> WideTable:
    """Return the table for the terminal: a line per metric, a column per row of the summary."""
    columns = []
    for row in summary.rows:
        cells = []
        for metric in summary.metrics:
            mean, spread, difference = parts(summary, row, metric)
            mean = f"[bold]{mean}[/bold]" if summary.best(metric) == row.name and not row.trivial else mean
            first = f"{mean} {spread}".strip()
            cells.append(f"{first}\n{difference}" if difference else first)
        columns.append(Column(escape(wrapped(label(row), NAME)), cells, dim=row.trivial))
    columns.sort(key=lambda column: column.dim)  # models first
    labels = Column("", [escape(wrapped(heading(name, info), METRIC)) for name, info in summary.metrics.items()])
    caption = escape(" ".join(notes(summary)))
    return WideTable(labels, columns, escape(title), caption, repeat=not columns[0].dim if columns else False)


def short(value: Any, width: int = 60) -> str:
    """Return a value of a configuration in one short line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= width else text[: width - 1] + "…"


def differences_markdown(differing: Sequence[Differences]) -> str:
    """Return the differences between configurations as Markdown: a line per key, a column per run."""
    blocks = []
    for group in differing:
        heads = [name.replace("|", "\\|") for name in group.names]
        lines = ["| key | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
        for key, values in {**group.changed, **group.partial}.items():
            cells = [f"`{short(values[name])}`".replace("|", "\\|") if name in values else "–" for name in group.names]
            lines.append(f"| `{key}` | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)
