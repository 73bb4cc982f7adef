"""Influence calibration on gradients that can be computed in the head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from animegen.engine import AnimegenError
from animegen.engine.callbacks import Checkpoints, InfluenceCalibration, RunRecord
from animegen.engine.lightning import LightningAdapter
from tests.unit.engine.callbacks.small import Small, fit

SCALES = {"one": 1.0, "four": 4.0}  # gradients of norm 1 and 4 on the only weight


@pytest.mark.parametrize(
    ("ratios", "factors"),
    [
        ({"one": 1, "four": 1}, {"one": 2.5, "four": 0.625}),  # 1 + 4 = 5 = 2.5 + 2.5
        ({"one": 3, "four": 1}, {"one": 3.75, "four": 0.3125}),  # 5 = 3.75 + 1.25
        ({"four": 7}, {"one": 1.0, "four": 1.0}),  # alone it keeps its influence
    ],
)
def test_ratios_are_reached_and_the_total_is_kept(ratios: dict, factors: dict, tmp_path: Path) -> None:
    model = Small(SCALES)
    record = RunRecord(tmp_path, {})
    fit(model, tmp_path, record, InfluenceCalibration(ratios, at=1, batches=2), Checkpoints(), steps=4)
    assert model.objectives["generator"].factors == pytest.approx(factors)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["state_dict"]["objectives.generator._extra_state"] == pytest.approx(factors)
    told = json.loads((tmp_path / "run.json").read_text())["calibration"].get("generator", {})
    assert told == pytest.approx({name: factor for name, factor in factors.items() if factor != 1.0})


def test_factors_count_from_the_step_after_the_last_measured(tmp_path: Path) -> None:
    weights = []

    class Look(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: object) -> None:
            weights.append(module.model.generator.weight.item())

    calibration = InfluenceCalibration({"one": 3, "four": 1}, at=1, batches=2)
    fit(Small(SCALES), tmp_path, Look(), calibration, steps=4)
    # The gradient is 1 + 4 = 5 before, and 3.75 + 1.25 = 5 after: the total is kept, so is the step.
    assert weights == pytest.approx([0.5, 0.0, -0.5, -1.0], abs=1e-6)


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    class Draws(Small):
        def updates(self, batch: dict[str, torch.Tensor]):
            self.drawn = torch.rand(()).item()
            return super().updates(batch)

    torch.manual_seed(3)
    plain = Draws(SCALES)
    fit(plain, tmp_path, steps=4)
    torch.manual_seed(3)
    measured = Draws(SCALES)
    fit(measured, tmp_path, InfluenceCalibration({"one": 1, "four": 4}, batches=3), steps=4)
    assert measured.drawn == plain.drawn
    assert measured.seen == plain.seen == 4
    torch.testing.assert_close(measured.generator.weight, plain.generator.weight)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ratios": {"fuor": 1}}, "names 'fuor', which is not a term.*Did you mean 'four'"),
        ({"ratios": {"one": 1}, "update": "critic"}, "update=critic: the model has the objectives generator"),
        ({"ratios": {"one": 0}}, "needs a positive number"),
        ({"ratios": {}}, "needs a positive number"),
        ({"ratios": {"one": 1}, "batches": 0}, "batches must be at least 1"),
        ({"ratios": {"none": 1}}, "gradient of the term 'none' on 'generator' has the norm 0"),
    ],
)
def test_mistakes_are_explained(settings: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match=words):
        fit(Small({**SCALES, "none": 0.0}), tmp_path, InfluenceCalibration(**settings), steps=9)
