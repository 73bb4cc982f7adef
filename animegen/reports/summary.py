"""Scores of several runs: mean and spread over the seeds, difference to the baseline, and the best row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from animegen.benchmarks.registry import MetricInfo, metric_info
from animegen.errors import AnimegenError, did_you_mean
from animegen.reports.runs import RunFolder


@dataclass(frozen=True)
class Cell:
    """A metric of a row.

    Attributes:
        values: of the runs that have the metric, in the order of the runs.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """The mean over the runs; ``None`` without a value."""
        return fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """The sample standard deviation; ``None`` with fewer than two values."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class TableRow:
    """A row of the table.

    Attributes:
        name: of the row.
        cells: metric -> cell.
        trivial: not a trained model: a trivial baseline, or derived from a trained model.
        privileged: it was fitted to the truth.
        note: about runs without scores.
        of: name of the row that this one is derived from (without memory, or smoothed); else empty.
    """

    name: str
    cells: dict[str, Cell]
    trivial: bool = False
    privileged: bool = False
    note: str = ""
    of: str = ""


@dataclass(frozen=True)
class Summary:
    """All rows of one benchmark.

    Attributes:
        task: of the benchmark.
        main: the metric by which runs are ranked.
        metrics: the metrics, in the order in which they are shown.
        rows: trivial baselines first.
        baseline: the row that the others are compared with.
        samples: number of test samples.
    """

    task: str
    main: str
    metrics: dict[str, MetricInfo]
    rows: list[TableRow]
    baseline: str
    samples: int

    def row(self, name: str) -> TableRow:
        """Return a row by its name."""
        return next(row for row in self.rows if row.name == name)

    def trained(self) -> list[TableRow]:
        """Return the rows of trained models."""
        return [row for row in self.rows if not row.trivial]

    def difference(self, row: TableRow, metric: str) -> float | None:
        """Return the mean of a row minus that of the baseline."""
        mine, base = row.cells[metric].mean, self.row(self.baseline).cells[metric].mean
        if row.trivial or row.name == self.baseline or mine is None or base is None:
            return None
        return mine - base

    def is_clear(self, row: TableRow, metric: str) -> bool | None:
        """Tell whether the difference to the baseline exceeds the spread; ``None`` without a spread."""
        return beyond_spread(row.cells[metric], self.row(self.baseline).cells[metric])

    def best(self, metric: str) -> str | None:
        """Return the trained row that leads all others by more than the spread, or ``None``."""
        better = self.metrics[metric].better
        ranked = [row for row in self.trained() if row.cells[metric].mean is not None]
        if better == "none" or len(ranked) < 2:
            return None
        ranked.sort(key=lambda row: row.cells[metric].mean or 0.0, reverse=better == "higher")
        leads = (beyond_spread(ranked[0].cells[metric], other.cells[metric]) for other in ranked[1:])
        return ranked[0].name if all(leads) else None


def beyond_spread(one: Cell, other: Cell) -> bool | None:
    """Tell whether the difference of two means exceeds the spread over seeds; ``None`` if a spread is unknown.

    The spread is the standard deviation of the difference of two single runs: the root of the sum of both variances.
    """
    if one.mean is None or other.mean is None or one.spread is None or other.spread is None:
        return None
    return abs(one.mean - other.mean) > math.hypot(one.spread, other.spread)


def summarise(
    rows: Mapping[str, Sequence[RunFolder]],
    metrics: Sequence[str] | None = None,
    baseline: str | None = None,
    method: str = "model",
) -> Summary:
    """Return the scores of runs with the same benchmark.

    Args:
        rows: name -> the row's runs, one per seed; at least one run has scores.
        metrics: to show; ``None`` shows all.
        baseline: name of the row that the others are compared with; ``None`` takes the first with scores.
        method: name of the model in the scores.

    Raises:
        AnimegenError: for a metric that no run has.
    """
    evaluations = [run.evaluation for runs in rows.values() for run in runs if run.evaluation is not None]
    first = evaluations[0]
    there = list(dict.fromkeys(name for each in evaluations for name in each["methods"].get(method, {})))
    for metric in metrics or []:
        if metric not in there:
            raise AnimegenError(
                f"No run has the metric '{metric}'.{did_you_mean(metric, there)} There are: {', '.join(there)}."
            )
    shown = list(metrics or there)
    derived = dict.fromkeys(name for each in evaluations for name in each.get("derived", []))
    others = dict.fromkeys(name for each in evaluations for name in each["methods"] if name != method)
    everything = [run for runs in rows.values() for run in runs]
    lines = [
        TableRow(name, _cells(everything, name, shown), True, name in first["privileged"])
        for name in others
        if name not in derived
    ]
    for row, runs in rows.items():
        for name in derived:
            cells = _cells(runs, name, shown)
            if any(cell.values for cell in cells.values()):
                lines.append(TableRow(f"{row}, {name}", cells, True, of=row))
    lines += [TableRow(name, _cells(runs, method, shown), note=_note(runs, shown)) for name, runs in rows.items()]
    base = baseline or next(name for name, runs in rows.items() if any(run.evaluation for run in runs))
    samples = max(score["n"] for score in first["methods"][method].values())
    infos = {name: _info(name, evaluations) for name in shown}
    return Summary(first["task"], first["main"], infos, lines, base, samples)


def of_result(result: Mapping[str, Any], name: str = "model") -> Summary:
    """Return the scores of a single evaluation, as in ``scores.json``, with its model called `name`."""
    run = RunFolder(Path(name), {"status": "finished", "evaluation": result})
    return summarise({name: [run]})


def _cells(runs: Sequence[RunFolder], method: str, metrics: Sequence[str]) -> dict[str, Cell]:
    found = {metric: [run.score(method, metric) for run in runs] for metric in metrics}
    return {metric: Cell(tuple(v for v in values if v is not None)) for metric, values in found.items()}


def _note(runs: Sequence[RunFolder], metrics: Sequence[str]) -> str:
    """Return how many runs have no scores, and why."""
    ended = []
    for run in runs:
        if run.evaluation is None:
            ended.append("not evaluated" if run.status == "finished" else run.status)
        elif any(run.score("model", metric) is None for metric in metrics):
            ended.append("not finite")
    return ", ".join(f"{count} of {len(runs)} {how}" for how, count in Counter(ended).items())


def _info(metric: str, evaluations: Sequence[dict[str, Any]]) -> MetricInfo:
    """Return the description of a metric: registered, or from the record of a run."""
    try:
        return metric_info(metric)
    except KeyError:
        noted = next(each["metrics"][metric] for each in evaluations if metric in each["metrics"])
        return MetricInfo(noted["unit"], noted["better"], noted["description"])
