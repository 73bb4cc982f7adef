"""The model of every experiment is rebuilt from a checkpoint under the rules for files from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen import load_model
from tests.support import options_of, untrained


@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_the_model_of_every_experiment_loads(experiment: str, tmp_path: Path) -> None:
    model = untrained(experiment, tmp_path / "a.ckpt")
    loaded = load_model(tmp_path / "a.ckpt", "cpu")
    assert loaded.train_step == 3
    saved = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    assert saved
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.items())
