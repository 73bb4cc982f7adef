"""Sweeps: what is asked for, what is gone on with, who gets which share of the machine, and what is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from animegen.errors import AnimegenError
from animegen.launch import jobs, sweep
from animegen.launch.sweep import Sweep, launcher_words, optimised, plan_sweep, report, slot


def test_the_folder_is_the_output_or_a_new_one(tmp_path: Path) -> None:
    asked = plan_sweep(["-m", "seed=0,1", f"output='{tmp_path / 'a b'}'"])
    assert asked == Sweep(tmp_path / "a b", ("-m", "seed=0,1"), False)
    assert asked.hydra_words() == ["seed=0,1", f"hydra.sweep.dir='{tmp_path / 'a b'}'", "--multirun"]
    assert plan_sweep(["-m", "seed=0,1", f"runs={tmp_path}"]).folder.parent == tmp_path / "sweep"


def test_a_sweep_is_not_overwritten_but_gone_on_with(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "overwrite=true"]
    (tmp_path / "sweep.json").write_text(json.dumps({"words": words}))
    asked = ["-m", "seed=0,1", f"output={tmp_path}"]
    assert plan_sweep(asked) == Sweep(tmp_path, ("-m", "seed=0,1"), False)  # nothing was trained there
    (tmp_path / "toy" / "checkpoints").mkdir(parents=True)
    (tmp_path / "toy" / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(AnimegenError, match="already holds a sweep: resume_sweep="):
        plan_sweep(asked)
    with pytest.raises(AnimegenError, match="leave out seed=3"):
        plan_sweep([f"resume_sweep={tmp_path}", "seed=3"])
    # Another launcher does not get the settings of the first.
    again = plan_sweep([f"resume_sweep={tmp_path}", "hydra/launcher=basic"])
    assert again == Sweep(tmp_path, ("-m", "seed=0,1", "hydra/launcher=basic"), True)
    with pytest.raises(AnimegenError, match=r"has no sweep\.json"):
        plan_sweep([f"resume_sweep={tmp_path / 'nothing'}"])
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(AnimegenError, match="cannot be read"):
        plan_sweep([f"resume_sweep={tmp_path}"])


def test_launchers_are_checked_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnimegenError, match="Did you mean 'joblib'"):
        plan_sweep(["-m", "hydra/launcher=joblip"])
    monkeypatch.setitem(sweep.LAUNCHERS, "ray", ("no_such_package_here", "ray"))
    with pytest.raises(AnimegenError, match=r"pip install 'animegen\[ray\]'"):
        plan_sweep(["-m", "hydra/launcher=ray"])


def test_launchers_know_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "list_gpus", lambda: ["0", "1", "5"])
    assert launcher_words("joblib")[0] == "hydra.launcher.n_jobs=3"
    assert "hydra.launcher.gpus_per_node=3" in launcher_words("submitit_local")
    assert "++hydra.launcher.ray.remote.num_gpus=1" in launcher_words("ray")
    monkeypatch.setattr(jobs, "list_gpus", list)
    monkeypatch.setattr(jobs, "count_cores", lambda: 16)
    assert launcher_words("joblib")[0] == "hydra.launcher.n_jobs=4"
    assert launcher_words("basic") == []
    assert Sweep(Path("/s"), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=9"), False).hydra_words() == [
        "hydra.launcher.batch_size='1'",
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=9", "hydra.sweep.dir='/s'", "--multirun"),
    ]


def test_gpus_are_shared_out_among_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tried = []
    monkeypatch.setattr(sweep.time, "sleep", lambda seconds: tried.append(seconds) or pytest.fail("no share is free"))
    gpus = ["0", "3"]
    with slot(tmp_path, -1, gpus) as (first, lock), slot(tmp_path, -1, gpus) as (second, _):
        assert (first.gpus, second.gpus) == ("0", "3")
        assert first.environment()["CUDA_VISIBLE_DEVICES"] == "0"
        assert lock is not None  # the run holds the share, too, should this process be killed
        with pytest.raises(pytest.fail.Exception, match="no share is free"), slot(tmp_path, -1, gpus):
            pass
        with slot(tmp_path / "other", -1, gpus) as (other, _):
            assert other.gpus == "0"
    with slot(tmp_path, -1, gpus) as (again, _):
        assert again.gpus == "0"
    with slot(tmp_path, 1, gpus) as (both, _):
        assert both.gpus == "0,3"


def test_a_cluster_has_set_up_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with slot(tmp_path, 0) as (share, lock):
        assert lock is None
        environment = share.environment()
        # With that name Lightning starts processes by itself, and does not take Slurm's tasks for them.
        assert (environment["CUDA_VISIBLE_DEVICES"], environment["SLURM_JOB_NAME"]) == ("7", "bash")
        assert environment.get("OMP_NUM_THREADS") == os.environ.get("OMP_NUM_THREADS")


def test_a_sweeper_optimises_the_main_metric_or_what_there_is() -> None:
    scores = {"main": "kid", "methods": {"model": {"kid": {"mean": 0.25}, "ssim": {"mean": 0.5}}}}
    record = {"metrics": {"train/x": 1.0, "val/psnr": 20.0}}
    assert optimised({**record, "evaluation": scores}) == 0.25
    del scores["methods"]["model"]["kid"]  # too few pictures for it
    assert optimised({**record, "evaluation": scores}) == 20.0
    assert optimised(record) == 20.0
    assert optimised({"metrics": {}}) is None


def test_the_report_counts_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Sweep(tmp_path, ("-m",), False)
    (tmp_path / "jobs").mkdir()
    for number, more in enumerate(
        ({"status": "finished"}, {"status": "failed", "reason": "NaN"}, {"status": "running"})
    ):
        told = {"job": number, "words": [f"seed={number}"], "folder": str(tmp_path / "x"), **more}
        (tmp_path / "jobs" / f"{number}.json").write_text(json.dumps(told))
    assert report(asked) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "failed: job 1: seed=1: NaN",
        "failed: job 2: seed=2: it ended without a word",
        f"animegen: 2 of 3 jobs failed; animegen train resume_sweep={tmp_path} tries them again.",
    ]
    assert said.out == f"the comparison: animegen compare {tmp_path}\n"
    for number in (1, 2):
        (tmp_path / "jobs" / f"{number}.json").unlink()
    assert report(asked) == 0
