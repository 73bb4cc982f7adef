"""Sweeps through the real command: crashed jobs, going on, distributed jobs, and every launcher."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from animegen import sweep
from tests.support import command, tiny

TOY = ("model=toy", "data=paired/toonworld")
ROOT = Path(__file__).parents[2]


def runs(folder: Path) -> dict[str, dict]:
    """Return the run records of a sweep by folder."""
    found = sorted(folder.rglob("run.json"))
    return {path.parent.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in found}


def test_a_crashed_job_ends_nothing_else_and_is_tried_again(tmp_path: Path) -> None:
    done = command("train", "-m", *tiny(*TOY), "train_steps=0,1", "output=out", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"failed: job 0: .*train_steps=0.*: train_steps must be at least 1, got 0\.", done.stderr)
    assert "1 of 2 jobs failed; animegen train resume_sweep=out tries them again" in done.stderr
    first = runs(tmp_path / "out")
    assert {name: run["status"] for name, run in first.items()} == {"toy/plain/seed0-1": "finished"}
    # What has failed before now works: here, since the words in the record are mended.
    record = tmp_path / "out" / "sweep.json"
    record.write_text(record.read_text().replace("train_steps=0,1", "train_steps=2,1"))
    again = command("train", "resume_sweep=out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    second = runs(tmp_path / "out")
    assert {name: run["train_step"] for name, run in second.items()} == {"toy/plain/seed0-0": 2, "toy/plain/seed0-1": 1}
    assert second["toy/plain/seed0-1"] == first["toy/plain/seed0-1"]


@pytest.mark.slow
def test_distributed_training_inside_a_sweep(tmp_path: Path) -> None:
    words = tiny(*TOY, "train_steps=1", "trainer=ddp_cpu")
    done = command("train", "-m", *words, "seed=0,1", f"output={tmp_path / 'out'}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in runs(tmp_path / "out").values()] == ["finished", "finished"]
    assert sorted(runs(tmp_path)) == ["out/toy/plain/seed0-0", "out/toy/plain/seed1-1"]


def needs(launcher: str) -> pytest.MarkDecorator:
    try:
        there = importlib.util.find_spec(sweep.LAUNCHERS[launcher][0]) is not None
    except ModuleNotFoundError:
        there = False
    return pytest.mark.skipif(not there, reason=f"the extra of hydra/launcher={launcher} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("joblib hydra.launcher.n_jobs=2", marks=needs("joblib")),
        pytest.param("submitit_local", marks=needs("submitit_local")),
    ],
)
def test_launchers_of_one_machine(launcher: str, tmp_path: Path) -> None:
    words = (*tiny(*TOY, "train_steps=1"), "seed=0,1", "output=out", *f"hydra/launcher={launcher}".split())
    done = command("train", "-m", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {name: run["config"]["seed"] for name, run in runs(tmp_path / "out").items()} == {
        "toy/plain/seed0-0": 0,
        "toy/plain/seed1-1": 1,
    }


@pytest.mark.slow
@needs("ray")
def test_a_ray_cluster(tmp_path: Path) -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": "/tmp"}
    ray = (sys.executable, "-m", "ray.scripts.scripts")
    start = ("start", "--head", "--port=0", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats")
    started = subprocess.run([*ray, *start], env=environment, capture_output=True, text=True, timeout=180)
    assert started.returncode == 0, started.stdout + started.stderr
    address = re.search(r"--address='([\d.]+:\d+)'", started.stdout)
    assert address, started.stdout
    where = f"hydra.launcher.ray.init.address='{address.group(1)}'"
    words = (*tiny(*TOY, "train_steps=1"), "seed=0,1", "output=out", "hydra/launcher=ray", where)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "animegen", "train", "-m", *words],
            **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 400},
        )
    finally:
        subprocess.run([*ray, "stop", "--force"], env=environment, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in runs(tmp_path / "out").values()] == ["finished", "finished"]
