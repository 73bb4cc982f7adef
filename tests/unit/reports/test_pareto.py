"""The plot of steadiness: what lies on its axes, its front, and rows that are made of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from animegen.reports.pareto import Axis, front, pareto_axes, pareto_plot
from animegen.reports.plots import png
from animegen.reports.runs import RunFolder
from animegen.reports.summary import of_result, summarise

CLIPS = {"strength": 0.3, "ssim": 0.7, "warp_error_1_exact": 9.0, "warp_gap_1_exact": 1.0}


def result(derived: tuple[str, ...] = ("blended",), **change: float) -> dict[str, Any]:
    def scores(**values: float) -> dict[str, Any]:
        return {name: {"mean": value, "std": None, "n": 2} for name, value in {**CLIPS, **values}.items()}

    methods = {"identity": scores(strength=0), "truth": scores(ssim=1, warp_gap_1_exact=0), "model": scores(**change)}
    methods |= {name: scores(warp_error_1_exact=4, warp_gap_1_exact=6) for name in derived}
    return {
        "task": "stylise_clips",
        "main": "ssim",
        "methods": methods,
        "metrics": {},
        "privileged": ["truth"],
        "derived": list(derived),
    }


def test_the_front_is_what_no_other_beats() -> None:
    assert front([(1, 5), (2, 3), (3, 4), (4, 1)]) == [0, 1, 3]
    assert front([(2, 2), (1, 1), (1, 3)]) == [1]
    assert front([]) == []


def test_rows_made_of_a_model_belong_to_their_run() -> None:
    rows = {
        name: [RunFolder(Path(name), {"status": "finished", "config": {"seed": 0}, "evaluation": result(ssim=value)})]
        for name, value in (("a", 0.7), ("b", 0.8))
    }
    summary = summarise(rows)
    assert [row.name for row in summary.rows] == ["identity", "truth", "a, blended", "b, blended", "a", "b"]
    assert [row.of for row in summary.rows] == ["", "", "a", "b", "", ""]
    assert [row.name for row in summary.trained()] == ["a", "b"]


def test_axes_follow_from_the_metrics() -> None:
    summary = of_result(result())
    (strength, error), (away, gap) = pareto_axes(summary)
    assert (strength.metric, error.metric, error.better) == ("strength", "warp_error_1_exact", "none")
    assert (away.metric, gap.metric, gap.better) == ("ssim", "warp_gap_1_exact", "low")
    assert away.of(summary.row("model")).mean == pytest.approx(0.3)
    assert Axis("ssim", "", "high").of(summary.row("model")).values == (0.7,)
    film = result()
    for scores in film["methods"].values():
        scores["warp_error_1_dis"] = scores.pop("warp_error_1_exact")
        del scores["warp_gap_1_exact"]
    ((_, error),) = pareto_axes(of_result(film))
    assert (error.metric, error.better) == ("warp_error_1_dis", "low")
    for scores in film["methods"].values():
        del scores["strength"]
    assert pareto_axes(of_result(film)) == []
    assert pareto_plot(of_result(film)) is None


def test_the_plot_names_every_row() -> None:
    figure = pareto_plot(of_result(result(("per_frame", "blended")), "mine"))
    assert figure is not None
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"mine", "mine, per_frame", "mine, blended", "truth"} <= labels
    assert {text.get_text() for text in figure.axes[0].texts} == {"identity"}
    assert png(figure).startswith(b"\x89PNG")
