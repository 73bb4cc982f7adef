"""Plots of temporal consistency against stylization strength: the identity and blur are the most consistent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from animegen.reports.plots import COLOURS, legend
from animegen.reports.summary import Cell, Summary, TableRow

PARETO = "pareto.png"
"""Name of the plot in a run folder or a report."""

CAPTION = (
    "Temporal consistency against strength, and against similarity to the truth: a dot per seed, a ring for the mean,"
    " thin lines to the same model without memory or smoothed; squares are trivial baselines (hollow: privileged)."
)

TRUTH = "#b8860b"
"""Colour of the ground truth, which no run has."""

LIKENESS = ("lpips_", "perceptual_")
"""Distances from the truth in the order of preference; 1 - SSIM where a benchmark has neither."""


@dataclass(frozen=True)
class Axis:
    """A metric as a coordinate.

    Attributes:
        metric: its full name.
        label: of the axis.
        better: which values are better: ``low``, ``high`` or ``none``.
        complement: show 1 - value.
    """

    metric: str
    label: str
    better: str
    complement: bool = False

    def of(self, row: TableRow) -> Cell:
        """Return the values of a row."""
        cell = row.cells[self.metric]
        return Cell(tuple(1 - value for value in cell.values)) if self.complement else cell


def pareto_axes(summary: Summary) -> list[tuple[Axis, Axis]]:
    """Return the (x, y) of each panel; none for scores without strength and warping error.

    The first panel shows warping error over strength. Without a ground truth, lower and further right is better; with
    one, its own warping error is the target, drawn as a line. The second panel, only with a ground truth, shows the
    distance of the warping error from that target over the distance of the images from the truth.
    """
    metrics = list(summary.metrics)
    errors = [name for name in metrics if name.startswith("warp_error_")]
    if "strength" not in metrics or not errors:
        return []
    error = errors[0]
    interval, _, flow = error.removeprefix("warp_error_").partition("_")
    gap = error.replace("error", "gap", 1)
    frames = "1 frame" if interval == "1" else f"{interval} frames"
    direction = "none" if gap in metrics else "low"
    strength = Axis("strength", "strength: 1 - SSIM to the photo", "high")
    axes = [(strength, Axis(error, f"warping error over {frames}, {flow} flow (levels)", direction))]
    if gap in metrics:
        known = (name for prefix in LIKENESS for name in metrics if name.startswith(prefix))
        network = next(known, None)
        away = Axis(network, f"{network} to the truth", "low") if network else None
        away = away or Axis("ssim", "1 - SSIM to the truth", "low", complement=True)
        axes.append((away, Axis(gap, "distance of the warping error from the truth's (levels)", "low")))
    return axes


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the Pareto front, sorted by the first coordinate; lower is better in both."""
    order = sorted(range(len(points)), key=lambda n: points[n])
    kept: list[int] = []
    for number in order:
        if not kept or points[number][1] < points[kept[-1]][1]:
            kept.append(number)
    return kept


def pareto_plot(summary: Summary) -> Figure | None:
    """Plot temporal consistency against strength and similarity; ``None`` for scores without them."""
    panels = pareto_axes(summary)
    if not panels:
        return None
    figure = Figure(figsize=(5.4 * len(panels) + 0.4, 5.0), layout="constrained")
    for axes, (x, y) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, summary, x, y)
    legend(figure, fontsize=8)
    return figure


def _panel(axes: Axes, summary: Summary, x: Axis, y: Axis) -> None:
    colours = {row.name: COLOURS[n % len(COLOURS)] for n, row in enumerate(summary.trained())}
    contest: list[tuple[float, float]] = []
    for row in summary.rows:
        mine, others = x.of(row), y.of(row)
        if mine.mean is None or others.mean is None:
            continue
        place = (mine.mean, others.mean)
        if row.name == "truth":
            if y.better == "none":
                axes.axhline(place[1], color=TRUTH, ls="--", lw=1, label="of the truth")
            axes.plot(*place, "*", color=TRUTH, ms=13, label="truth", clip_on=False, zorder=3)
            continue
        if not row.privileged:
            contest.append(place)
        if row.of:
            home = summary.row(row.of)
            left, low = x.of(home).mean, y.of(home).mean
            colour = colours[row.of]
            if left is not None and low is not None:
                axes.plot((left, place[0]), (low, place[1]), "-", color=colour, lw=0.8, alpha=0.6, zorder=1)
            axes.plot(*place, _marker(row), color=colour, ms=6, label=row.name)
        elif row.trivial:
            fill = "none" if row.privileged else "#888888"
            axes.plot(*place, "s", color="#888888", mfc=fill, ms=6)
            offset = (5, -10) if row.privileged else (5, 4)  # the two colour maps lie close together
            axes.annotate(row.name, place, offset, textcoords="offset points", fontsize=7, color="#555555")
        else:
            colour = colours[row.name]
            if len(mine.values) == len(others.values) > 1:
                axes.plot(mine.values, others.values, ".", color=colour, ms=6, alpha=0.5)
            axes.plot(*place, "o", color=colour, mfc="white", mew=2, ms=9, label=row.name, zorder=4)
    if y.better == "low" and len(contest) > 1:
        sign = -1 if x.better == "high" else 1
        best = [contest[n] for n in front([(sign * a, b) for a, b in contest])]
        across, up = zip(*best, strict=True)
        axes.plot(across, up, ":", color="#444444", lw=1.2, label="Pareto front", zorder=0)
    axes.set_xlabel(x.label + _towards(x))
    axes.set_ylabel(y.label + _towards(y))
    axes.margins(0.16)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(alpha=0.3)


def _marker(row: TableRow) -> str:
    return "v" if row.name.endswith("blended") else "x"


def _towards(axis: Axis) -> str:
    return {"low": " ↓", "high": " ↑", "none": ""}[axis.better]
