"""Validation of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from animegen.config.compose import compose_config
from animegen.launch.run_plan import Request, validate
from tests.support import tiny


@pytest.mark.parametrize("steps", [2, 3, 9])
def test_a_training_that_is_mostly_pre_training_says_so(
    steps: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = tiny("experiment=animegan/quickstart", f"model.pretrain_steps={steps}", "train_steps=4")
    validate(Request(compose_config("train", words), tmp_path / "run", {}, words))
    found = [message.partition(" are pre-training")[0] for message in caplog.messages if "are pre-training" in message]
    assert found == ([] if steps == 2 else [f"{min(steps, 4)} of 4 train steps"])
