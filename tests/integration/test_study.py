"""A study from the command to its report: trained by processes, resumed, compared, and written into a README."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from animegen.cli import compare, listing
from animegen.cli import train as train_verb
from animegen.launch import jobs
from tests.support import refused, run_verb

STUDY = """# @package _global_
question: Does it need the rate?
experiments: [toy/quickstart]
variants: {slow: [model.optimizers.generator.lr=0.0001]}
seeds: [4]
overrides: [size=tiny, device=cpu, logger=csv, train_steps=2, val_every=1, data.scenes=2, data.frames_per_scene=1]
metrics: [ssim, psnr]
samples: [0, 1]
"""
SMALLER = ("data.val_scenes=2", "data.test_scenes=2", "callbacks.previews.samples=1")


def trained_here(tasks: Sequence[jobs.Task], *_: object) -> list[jobs.Failure]:
    """Train the runs of a study in this process: two that start cost more than all else of the test."""
    for task in tasks:
        assert task.command[1:5] == ("-P", "-m", "animegen", "train"), task.command
        HydraConfig.instance().cfg = None
        assert run_verb(train_verb.main, *task.command[5:]) == 0, task.command
    return []


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_study_is_trained_compared_and_recorded(
    processes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if processes:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(train_verb.__file__).parents[1])]))
    else:
        monkeypatch.setattr(jobs, "run_all", trained_here)
    (tmp_path / "experiments" / "study").mkdir(parents=True)
    (tmp_path / "experiments" / "study" / "rate.yaml").write_text(STUDY)
    listed = dict(listing.entries("studies"))
    assert listed["toy"].startswith("The smallest study, two minutes on a CPU")
    assert listed["rate"] == ""
    assert run_verb(compare.main, "study=rate") == 2
    assert "first animegen train study=rate" in capfd.readouterr().err
    words = ("study=rate", "jobs=2", *SMALLER)
    assert run_verb(train_verb.main, *words) == 0
    folder = tmp_path / "runs" / "study" / "rate"
    assert "study rate: 2 of 2 runs to do in runs/study/rate" in capfd.readouterr().out
    records = {name: json.loads((folder / name / "seed4" / "run.json").read_text()) for name in ("plain", "slow")}
    assert {name: (r["status"], r["config"]["seed"], r["train_step"]) for name, r in records.items()} == {
        "plain": ("finished", 4, 2),
        "slow": ("finished", 4, 2),
    }
    rates = [r["config"]["model"]["optimizers"]["generator"]["lr"] for r in records.values()]
    assert rates == [0.003, 0.0001]

    # The same command again: nothing is left to do.
    before = (folder / "slow" / "seed4" / "run.json").stat().st_mtime_ns
    assert run_verb(train_verb.main, *words) == 0
    assert "0 of 2 runs to do" in capfd.readouterr().out
    assert (folder / "slow" / "seed4" / "run.json").stat().st_mtime_ns == before
    assert run_verb(train_verb.main, *words, "train_steps=3") == 2
    assert "train_steps is 2 there and 3 now" in capfd.readouterr().err

    readme = tmp_path / "experiments" / "rate" / "README.md"
    readme.parent.mkdir()
    readme.write_text("# Mine\n\n<!-- results -->\nold\n<!-- /results -->\n\nMy conclusion.\n")
    assert run_verb(compare.main, "study=rate") == 0
    told = capfd.readouterr().out
    value = records["slow"]["evaluation"]["methods"]["model"]["ssim"]["mean"]
    assert f"{value:.3f}" in told
    text = readme.read_text()
    assert text.startswith("# Mine\n\n<!-- results -->\n")
    assert text.endswith("<!-- /results -->\n\nMy conclusion.\n")
    assert "old" not in text
    assert f"| slow | {value:.3f} (" in text
    names = {"README.md", "results.csv", "scores.jpg", "curves.jpg", "strip.jpg"}
    assert {path.name for path in readme.parent.iterdir()} == names
    assert all(path.stat().st_size < 300_000 for path in readme.parent.iterdir())
    report = folder / "report"
    assert {path.name for path in report.iterdir()} == {
        *("report.html", "table.md", "table.csv", "scores.png", "curves.png", "strip.png"),
    }
    html = (report / "report.html").read_text()
    assert "model.optimizers.generator.lr" in html
    assert "http" not in html
    assert "Does it need the rate?" in html

    assert "data:image/" in (folder / "plain" / "seed4" / "report.html").read_text()

    # Any runs, one of them crashed; and one run alone.
    crashed = {**records["slow"], "status": "crashed", "error": "NaN"}
    (folder / "slow" / "seed4" / "run.json").write_text(json.dumps(crashed))
    assert run_verb(compare.main, str(folder / "plain"), str(folder / "slow"), "output=both") == 0
    assert "crashed: NaN" in capfd.readouterr().err
    assert "1 of 1 crashed" in (tmp_path / "both" / "table.md").read_text()
    code = run_verb(compare.main, str(folder / "plain"), "output=both")
    assert "exists: choose another output=" in refused(capfd, code)
    # Also runs of which none has scores: how they ended, and in what they differ.
    plain = {**records["plain"], "status": "interrupted"}
    (folder / "plain" / "seed4" / "run.json").write_text(json.dumps(plain))
    assert run_verb(compare.main, str(folder / "plain"), str(folder / "slow"), "output=neither") == 0
    assert "No run has scores" in capfd.readouterr().err
    html = (tmp_path / "neither" / "report.html").read_text()
    assert "model.optimizers.generator.lr" in html
    assert "NaN" in html
    (folder / "plain" / "seed4" / "run.json").write_text(json.dumps(records["plain"]))
    code = run_verb(compare.main, str(folder / "plain"), "metrics=[sim]")
    assert "Did you mean 'ssim'" in refused(capfd, code)
    assert run_verb(compare.main, str(folder / "plain")) == 0
    html = (folder / "plain" / "seed4" / "report" / "report.html").read_text()
    assert "After train step 2." in html
    assert "Objectives over the train steps." in html


def test_a_failed_run_is_reported_and_the_others_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    broken = "import sys; sys.exit('animegen: no such luck.' if 'lr=0.0001' in str(sys.argv) else 0)"
    monkeypatch.setattr(jobs, "train_command", lambda words: (sys.executable, "-S", "-c", broken, *words))
    (tmp_path / "experiments" / "study").mkdir(parents=True)
    (tmp_path / "experiments" / "study" / "rate.yaml").write_text(STUDY)
    assert run_verb(train_verb.main, "study=rate", "seeds=[0,1]") == 1
    told = capfd.readouterr().err
    assert "failed: slow, seed 0: no such luck." in told
    assert "failed: slow, seed 1: no such luck." in told
    assert "2 of 4 runs failed" in told
