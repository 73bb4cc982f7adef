"""The same seed gives the same weights, and the record of a run is enough to run it again - for every family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from animegen.cli import train as train_verb
from animegen.engine.checkpoint import read_checkpoint
from animegen.launch import run
from animegen.launch.rerun import what_differs
from tests.support import assert_same_state, options_of, refused, run_verb, train

EXPERIMENTS = options_of("experiment")
#: One of each family: the quickstart, if it has one.
FAMILIES = sorted({e.split("/")[0]: e for e in sorted(EXPERIMENTS, key=lambda e: e.endswith("/quickstart"))}.values())


@pytest.mark.parametrize("experiment", FAMILIES)
def test_the_record_is_enough_to_run_it_again(
    experiment: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (f"experiment={experiment}", "precision=fp32", "train_steps=2", "seed=3")
    first = train(*words, output=tmp_path / "first")
    record = json.loads((first / "run.json").read_text())
    record["versions"]["numpy"] = "0.1"
    (first / "run.json").write_text(json.dumps(record))
    again = tmp_path / "again"
    assert run_verb(train_verb.main, f"rerun={first / 'run.json'}", f"output={again}") == 0
    assert "numpy: 0.1 then, " in capfd.readouterr().err
    assert_same_state(read_checkpoint(first), read_checkpoint(again))
    mine = json.loads((again / "run.json").read_text())
    assert {**mine["config"], "output": None} == {**record["config"], "output": None}


def test_another_seed_gives_other_weights_and_a_rerun_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("experiment=toy/quickstart", "train_steps=1")
    one, other = (train(*words, f"seed={seed}", output=tmp_path / str(seed)) for seed in (0, 1))
    with pytest.raises(AssertionError):
        assert_same_state(read_checkpoint(one), read_checkpoint(other))
    code = run_verb(train_verb.main, f"rerun={one}", "train_steps=9")
    assert "rerun= repeats a run as it was" in refused(capfd, code)
    code = run_verb(train_verb.main, f"rerun={one}", f"output={other}")
    assert "already holds a run" in refused(capfd, code)
    code = run_verb(train_verb.main, f"rerun={tmp_path / 'nothing'}")
    assert "has no readable run.json" in refused(capfd, code)


def test_what_differs_is_reported() -> None:
    lines = what_differs({"versions": {}, "git": {"commit": "0" * 40, "dirty": True}, "resumed_at": 7})
    assert "torch: not recorded then, " in " ".join(lines)
    assert "code: it had uncommitted changes then" in lines
    assert lines[-1] == "the run was resumed at train step 7; this one starts at step 0"


def test_an_interrupted_evaluation_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    real = run.evaluate_model

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "run"
    words = ("size=tiny", "device=cpu", "threads=1", "train_steps=2", "data.scenes=2", "data.frames_per_scene=1")
    words = ("experiment=toy/quickstart", *words, "data.val_scenes=2", "data.test_scenes=2", f"output={folder}")
    monkeypatch.setattr(run, "evaluate_model", interrupted)
    assert run_verb(train_verb.main, *words) == 130
    before = json.loads((folder / "run.json").read_text())
    assert (before["status"], before["train_step"], "evaluation" in before) == ("interrupted", 2, False)
    weights = (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    monkeypatch.setattr(run, "evaluate_model", real)
    assert run_verb(train_verb.main, f"resume={folder}") == 0
    after = json.loads((folder / "run.json").read_text())
    assert (after["status"], after["train_step"]) == ("finished", 2)
    assert after["evaluation"] == json.loads((folder / "scores.json").read_text())
    assert after["parameters"] == before["parameters"]
    assert (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns == weights
    assert any(b"custom_scalars__config__" in path.read_bytes() for path in folder.glob("events.*"))
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page
    capfd.readouterr()
    code = run_verb(train_verb.main, f"resume={folder}")
    assert "has already trained 2 steps" in refused(capfd, code)
