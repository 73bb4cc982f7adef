"""A run that was trained with ablations is resumed, scored and repeated with them."""

from __future__ import annotations

import json
from pathlib import Path

from animegen.cli import evaluate
from animegen.cli import train as train_verb
from animegen.engine.checkpoint import read_checkpoint
from tests.support import run_verb, train

NAMES = "[animegan/no_tv,animegan/gan_hinge]"


def recorded(run: Path) -> tuple[int, dict, dict]:
    """Return the train step, the ablations and the objectives in the record of a run."""
    record = json.loads((run / "run.json").read_text())
    return record["train_step"], record["config"]["ablations"], record["config"]["model"]["objectives"]


def test_ablations_stay_with_a_run(tmp_path: Path) -> None:
    run = train("experiment=animegan/quickstart", f"ablation={NAMES}", "train_steps=1", output=tmp_path / "run")
    _, ablations, objectives = recorded(run)
    assert ablations == {"no_tv": True, "gan_hinge": True}
    assert objectives["discriminator"]["real"]["loss"]["kind"] == "hinge"
    assert objectives["generator"]["tv"] is None

    train(f"resume={run}", "train_steps=2")
    assert recorded(run) == (2, ablations, objectives)
    assert read_checkpoint(run)["animegen"]["config"]["ablations"] == ablations

    # With other words about data the whole configuration is composed again.
    scores = tmp_path / "scores"
    assert run_verb(evaluate.main, f"checkpoint={run}", "data.test_scenes=1", "samples=1", f"output={scores}") == 0
    assert json.loads((scores / "scores.json").read_text())["methods"]["model"]

    again = tmp_path / "again"
    assert run_verb(train_verb.main, f"rerun={run}", f"output={again}") == 0
    assert recorded(again) == (2, ablations, objectives)
