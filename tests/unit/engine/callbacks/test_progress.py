"""What the terminal shows, and the random generators of a resumed run."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from animegen.engine import AnimegenError
from animegen.engine.callbacks import LogEvery, Progress
from animegen.engine.callbacks.resume import generator_states, restore_generators
from tests.unit.engine.callbacks.small import Small, fit


def test_a_plain_line_where_there_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = fit(Small(), tmp_path, Progress(every=2, train_steps=5), steps=5)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [re.sub(r"  [\d.]+ steps/s", "", line) for line in lines] == [
        "step 2/5  generator 0.9",
        "step 4/5  generator 0.7",
    ]
    shown = trainer.lightning_module.shown
    assert shown["perf/samples_per_s"] == shown["perf/steps_per_s"] > 0


def test_a_bar_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(every=2, train_steps=5)
    fit(Small(), tmp_path, progress, steps=5)
    assert progress._bar is None
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
