"""What is different on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen.cli import train as train_verb
from animegen.engine.checkpoint import read_checkpoint
from animegen.launch import run
from tests.support import refused, run_verb, tiny, train

pytestmark = pytest.mark.cuda

TOY = ("experiment=toy/quickstart", "device=cuda")


def test_the_model_is_evaluated_where_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(run, "evaluate_model", lambda model, *_: seen.append(model.device.type))
    train(*TOY, "evaluate=true", "train_steps=2", output=tmp_path / "run")
    assert seen == ["cuda"]


def test_resumed_runs_agree(tmp_path: Path) -> None:
    words = ("callbacks.checkpoints.every=2", "callbacks.checkpoints.keep=-1", "train_steps=4")
    whole = train(*TOY, *words, output=tmp_path / "whole")
    resumed = train(f"resume={whole}/checkpoints/step-0000002.ckpt", output=tmp_path / "resumed")
    mine, other = (read_checkpoint(folder)["state_dict"] for folder in (whole, resumed))
    for key, value in mine.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(other[key], value, msg=key)


def test_a_bad_loss_is_found_before_the_next_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poison = "{loss:{_target_:tests.integration.test_run.Poison},reads:{image:fake}}"
    words = tiny(*TOY, f"+model.objectives.generator.poison={poison}", "train_steps=9", "callbacks.checkpoints.every=2")
    code = run_verb(train_verb.main, *words, f"output={tmp_path / 'run'}")
    assert "'poison' of 'generator' became nan in train step 3" in refused(capsys, code)
    assert read_checkpoint(tmp_path / "run")["animegen"]["train_step"] == 2
