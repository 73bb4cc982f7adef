"""The model of every experiment is rebuilt from a checkpoint under the rules for files from elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from animegen import load_model
from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.engine.checkpoint import TRAINING_ONLY
from tests.support import options_of, tiny


@pytest.mark.parametrize("experiment", options_of("experiment"))
def test_the_model_of_every_experiment_loads(experiment: str, tmp_path: Path) -> None:
    words = tiny(f"experiment={experiment}")
    config = compose_config("train", words, complete=False)
    OmegaConf.set_struct(config, False)
    for key in config.data or ():
        if OmegaConf.is_missing(config.data, key):
            config.data[key] = "given"
    values: dict[str, Any] = json.loads(json.dumps(plain(config), default=str))
    model = build({key: value for key, value in values["model"].items() if key not in TRAINING_ONLY}, "model")
    content = {"config": values, "train_step": 3, "version": "0", "overrides": words, "choices": {}}
    torch.save({"state_dict": model.state_dict(), "animegen": content}, tmp_path / "a.ckpt")
    loaded = load_model(tmp_path / "a.ckpt", "cpu")
    assert loaded.train_step == 3
    saved = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    assert saved
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in saved.items())
