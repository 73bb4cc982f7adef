"""What the terminal shows, and the random generators of a resumed run."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from animegen.engine import AnimegenError
from animegen.engine.callbacks import LogEvery, Progress, progress
from animegen.engine.callbacks.resume import generator_states, restore_generators
from tests.unit.engine.callbacks.small import Small, fit


def test_a_plain_line_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(Small(), tmp_path, Progress(every=2, train_steps=5), steps=5)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [re.sub(r"  [\d.]+ steps/s  \d+:\d\d:\d\d left$", "", line) for line in lines] == [
        "step 2/5  generator 0.9",
        "step 4/5  generator 0.7",
    ]


def test_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps in a minute, three are to come."""
    clock = iter([1000.0, 1060.0, 1120.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    fit(Small(), tmp_path, Progress(every=2, train_steps=5), steps=5)
    assert re.findall(r"\S+ left", capsys.readouterr().err) == ["0:01:30 left", "0:00:30 left"]


def test_the_rate_is_logged(tmp_path: Path) -> None:
    trainer = fit(Small(), tmp_path, Progress(every=2, train_steps=5), steps=5)
    shown = trainer.lightning_module.shown
    assert shown["perf/samples_per_s"] == shown["perf/steps_per_s"] > 0


def test_a_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    callback = Progress(every=2, train_steps=5)
    fit(Small(), tmp_path, callback, steps=5)
    assert callback._bar is None
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 2/5" not in err


@pytest.mark.parametrize("callback", [Progress, LogEvery])
def test_wrong_settings(callback: type) -> None:
    with pytest.raises(AnimegenError, match="must be at least 1, got 0"):
        callback(0)


def test_all_generators_continue_where_they_were() -> None:
    def draw() -> tuple[float, float, float, float]:
        return random.random(), random.gauss(0, 1), np.random.rand(), torch.rand(()).item()  # noqa: NPY002

    random.gauss(0, 1)  # leaves a second value in store
    state = generator_states()
    expected = [draw(), draw()]
    restore_generators(state)
    assert [draw(), draw()] == expected
