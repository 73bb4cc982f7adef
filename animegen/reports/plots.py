"""Plots of a comparison: validation curves over the train steps, and the final scores with their spread."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from animegen.reports.runs import Curve
from animegen.reports.summary import Summary
from animegen.reports.tables import heading

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#000000", "#7f3c8d", "#80ba5a", "#a5aa99", "#f2b701", "#cf1c90"),
)
"""The colours of Okabe and Ito without yellow, which suit most colour-blind people, then more."""

PANELS_PER_LINE = 3


def band(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return steps, mean, lowest and highest value of curves at the steps that all of them have, each (N,)."""
    shared = set.intersection(*({step for step, _ in curve} for curve in curves))
    steps = sorted(shared)
    values = np.array([[dict(curve)[step] for step in steps] for curve in curves]).reshape(len(curves), len(steps))
    return np.array(steps), values.mean(0), values.min(0), values.max(0)


def curves_plot(rows: Mapping[str, Sequence[Mapping[str, Curve]]], metrics: Sequence[str]) -> Figure | None:
    """Plot metrics over the train steps: a panel per metric, a line per row, a band from lowest to highest seed.

    Args:
        rows: name -> per run of the row, its curves by metric.
        metrics: to plot; those that no run has are left out.

    Returns:
        The figure, or ``None`` if there is nothing to plot.
    """
    there = [metric for metric in metrics if any(metric in run for runs in rows.values() for run in runs)]
    if not there:
        return None
    figure, panels = _panels(len(there), 3.4, 2.6)
    for metric, axes in zip(there, panels, strict=True):
        for number, (name, runs) in enumerate(rows.items()):
            curves = [run[metric] for run in runs if metric in run]
            if not curves:
                continue
            steps, mean, low, high = band(curves)
            colour = COLOURS[number % len(COLOURS)]
            dashes = "-" if number < len(COLOURS) else "--"
            axes.plot(steps, mean, dashes, color=colour, label=name, marker="." if len(steps) < 12 else None, lw=1.4)
            if len(curves) > 1:
                axes.fill_between(steps, low, high, color=colour, alpha=0.15 if len(rows) < 4 else 0.07, lw=0)
        axes.set_title(metric)
        axes.set_xlabel("train step")
    legend(figure)
    return figure


def scores_plot(summary: Summary) -> Figure:
    """Plot the final scores: a panel per metric, a line per row with its seeds, mean and spread; baselines dotted."""
    rows = summary.trained()
    figure, panels = _panels(len(summary.metrics), 3.4, 1.1 + 0.28 * len(rows))
    for (metric, info), axes in zip(summary.metrics.items(), panels, strict=True):
        for place, row in enumerate(rows):
            cell, colour = row.cells[metric], COLOURS[place % len(COLOURS)]
            axes.plot(cell.values, [place] * len(cell.values), "o", ms=5, color=colour, alpha=0.45, mew=0)
            if cell.mean is not None:
                axes.errorbar(cell.mean, place, xerr=cell.spread, fmt="|", ms=11, mew=2, color=colour, capsize=3)
        trivial = [row for row in summary.rows if row.trivial and not row.of]
        for row, style in zip(trivial, ("-", "--", ":", "-.") * 9, strict=False):
            if (mean := row.cells[metric].mean) is not None:
                axes.axvline(mean, color="#888888", ls=style, lw=1, label=row.name + ("*" if row.privileged else ""))
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(heading(metric, info))
        if (axes is not panels[0]) and panels.index(axes) % PANELS_PER_LINE:
            axes.tick_params(labelleft=False)
    legend(figure)
    return figure


def legend(figure: Figure, fontsize: float | None = None) -> None:
    """Add one legend below all panels, with each label once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    if handles:
        columns = min(4, len(handles))
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=columns, fontsize=fontsize
        )


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels of ``width`` x ``height`` inches, some per line."""
    columns = min(count, PANELS_PER_LINE)
    lines = -(-count // PANELS_PER_LINE)
    figure = Figure(figsize=(width * columns + 0.8, height * lines + 0.6), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    axes = [axes for line in grid for axes in line]
    for empty in axes[count:]:
        empty.remove()
    for used in axes[:count]:
        used.grid(alpha=0.3)
        used.tick_params(labelsize=8)
        used.title.set_fontsize(10)
        used.xaxis.label.set_fontsize(8)
    return figure, axes[:count]
