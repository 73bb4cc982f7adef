"""Every experiment composes, trains at size=tiny, resumes exactly, and its checkpoint stands alone.

The lists come from the configuration, so a new family is tested from the moment it exists.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen import load_model
from animegen.core.checkpoint import read_checkpoint
from animegen.core.config import compose_config, list_options
from animegen.core.protocols import Stylizer
from tests.support import TINY, train

EXPERIMENTS = [o.removeprefix("experiment/") for o in list_options() if o.startswith("experiment/")]
EXPERIMENTS.remove("none")
ABLATIONS = [o.removeprefix("ablation/") for o in list_options() if o.startswith("ablation/") and o != "ablation/none"]
MODELS = [o.removeprefix("model/") for o in list_options() if o.startswith("model/")]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment: str) -> None:
    config = compose_config("train", [f"experiment={experiment}"])
    assert config.model._target_.startswith("animegen.models.")
    assert config.train_steps > 0


@pytest.mark.parametrize("model", MODELS)
def test_every_model_composes(model: str) -> None:
    compose_config("train", [f"model={model}"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_trains_and_its_checkpoint_stands_alone(experiment: str, tmp_path: Path) -> None:
    folder = train(f"experiment={experiment}", *TINY, "train_steps=2", output=tmp_path / "run")
    content = read_checkpoint(folder)
    assert content["animegen"]["train_step"] == 2
    assert content["animegen"]["config"]["seed"] == 0
    assert not any(key.startswith("features.") for key in content["state_dict"])
    model = load_model(folder, device="cpu")
    assert model.train_step == 2
    if isinstance(model, Stylizer):
        pictures = torch.rand(1, 3, 37, 50) * 2 - 1
        output, _ = model.stylize(pictures, None)
        assert output.shape == pictures.shape
        assert output.abs().max() <= 1


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_resumes_to_the_bit(experiment: str, tmp_path: Path) -> None:
    options = (f"experiment={experiment}", *TINY, "threads=1", "precision=fp32")
    whole = train(*options, "train_steps=5", output=tmp_path / "whole")
    part = train(*options, "train_steps=2", output=tmp_path / "part")
    train(f"resume={part}", "train_steps=5")
    expected, resumed = read_checkpoint(whole), read_checkpoint(part)
    assert resumed["animegen"]["train_step"] == 5
    assert expected["state_dict"].keys() == resumed["state_dict"].keys()
    for key, value in expected["state_dict"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, resumed["state_dict"][key]), key
    for mine, other in zip(expected["optimizer_states"], resumed["optimizer_states"], strict=True):
        for number, state in mine["state"].items():
            for name, value in state.items():
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(other["state"][number][name]))
