"""Sweeps through the real command: crashed jobs, going on, distributed jobs, and every launcher."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl

from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.lightning import LightningAdapter
from animegen.launch import launchers, slots
from tests.support import assert_same_state, command, sentence, tiny, train

TOY = ("model=toy", "data=paired/toonworld")
ROOT = Path(__file__).parents[2]


def runs(folder: Path) -> dict[str, dict]:
    """Return the run records of a sweep by folder."""
    found = sorted(folder.rglob("run.json"))
    return {path.parent.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in found}


@pytest.mark.slow
def test_a_crashed_job_ends_nothing_else_and_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "toy.ckpt").touch()
    done = command("train", "-m", *tiny(*TOY), "init=toy.ckpt,null", "train_steps=1", "output=out", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(r"failed: job 0 \(init=toy.ckpt\): .*toy.ckpt", done.stderr)
    assert "1 of 2 runs failed. To run them again: animegen train resume_sweep=out" in done.stderr
    first = runs(tmp_path / "out")
    assert {name: run["status"] for name, run in first.items()} == {"toy/seed0-1": "finished"}
    # What has failed before now works: here, since the words in the record are mended.
    record = tmp_path / "out" / "sweep.json"
    record.write_text(record.read_text().replace("toy.ckpt,null", "null,null"))
    again = command("train", "resume_sweep=out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    second = runs(tmp_path / "out")
    assert {name: run["train_step"] for name, run in second.items()} == {"toy/seed0-0": 1, "toy/seed0-1": 1}
    assert second["toy/seed0-1"] == first["toy/seed0-1"]


@pytest.mark.slow
def test_distributed_training_inside_a_sweep(tmp_path: Path) -> None:
    words = tiny(*TOY, "train_steps=1", "trainer=ddp_cpu")
    done = command("train", "-m", *words, "seed=0,1", f"output={tmp_path / 'out'}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in runs(tmp_path / "out").values()] == ["finished", "finished"]
    assert sorted(runs(tmp_path)) == ["out/toy/seed0-0", "out/toy/seed1-1"]


class KillsFirst(pl.Callback):
    """Kills the first job that gets to a step, as the kernel does when memory runs out.

    Args:
        witness: file that tells that it was done.
        step: of the training.
    """

    def __init__(self, witness: str, step: int) -> None:
        self.witness, self.step = Path(witness), step

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: object) -> None:
        if module.train_step == self.step and not self.witness.exists():
            self.witness.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_job_is_reported_and_continues_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the jobs use a callback of the tests
    words = (*TOY, "train_steps=4", "callbacks.checkpoints.every=1", "callbacks.checkpoints.keep=-1")
    whole = train(*words, "seed=0", output=tmp_path / "whole")
    kills = (
        f"+callbacks.kills={{_target_:tests.integration.test_sweep.KillsFirst,witness:{tmp_path / 'killed'},step:3}}"
    )
    done = command("train", "-m", *tiny(*words), kills, "seed=0,1", f"output={tmp_path / 'out'}", cwd=ROOT)
    assert done.returncode == 1, done.stderr
    assert re.search(r"failed: job 0 \(seed=0\): killed by SIGKILL", done.stderr)
    before = runs(tmp_path / "out")
    assert [run["status"] for run in before.values()] == ["running", "finished"]  # nobody could write down its end
    again = command("train", f"resume_sweep={tmp_path / 'out'}", "trust=true", cwd=ROOT)
    assert again.returncode == 0, again.stderr
    after = runs(tmp_path / "out")
    assert [(run["status"], run["train_step"]) for run in after.values()] == [("finished", 4)] * 2
    mended, untouched = after
    assert after[mended]["resumed_at"] in (2, 3)
    assert after[untouched] == before[untouched]
    assert_same_state(read_checkpoint(whole), read_checkpoint(tmp_path / "out" / mended))


@pytest.mark.slow
def test_a_killed_sweep_is_finished(tmp_path: Path) -> None:
    out, steps = tmp_path / "out", tiny(*TOY, "train_steps=4")
    words = [sys.executable, "-m", "animegen", "train", "-m", *steps, "seed=0,1,2", f"output={out}"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    first = out / "toy/seed0-0/run.json"
    until = time.monotonic() + 200
    while not (first.exists() and json.loads(first.read_text())["status"] == "finished"):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    process.kill()
    process.wait()
    before = runs(out)["toy/seed0-0"]
    for _ in range(20):  # the job that it had started may still be at work in its folder, which is reported
        done = command("train", f"resume_sweep={out}", cwd=ROOT)
        if done.returncode == 0:
            break
        assert "at work" in done.stderr
        time.sleep(2)
    after = runs(out)
    assert [(run["status"], run["train_step"]) for run in after.values()] == [("finished", 4)] * 3
    assert after["toy/seed0-0"] == before


@pytest.mark.slow
def test_two_sweeps_into_the_same_folder(tmp_path: Path) -> None:
    words = [*tiny(*TOY, "train_steps=2"), "seed=0,1", f"output={tmp_path / 'out'}"]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "animegen", "train", "-m", *words],
            **{"cwd": ROOT, "stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True},
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    refusal = sentence(said[[process.returncode for process in both].index(2)], 2)
    assert "Another command is at work" in refusal or "already holds a sweep" in refusal
    assert [run["status"] for run in runs(tmp_path / "out").values()] == ["finished"] * 2


class Share(pl.Callback):
    """Writes down which share of the machine a job was given, and when it held it."""

    def on_fit_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        self.began = time.time()

    def on_train_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        mine = {key: os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
        said = {**mine, "began": self.began, "ended": time.time()}
        Path(trainer.default_root_dir, "share.json").write_text(json.dumps(said))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "gpus", "shares"),
    [
        # Two jobs on four GPUs: each sees two, for trainer=ddp. Two on two by default: one each.
        ("joblib hydra.launcher.n_jobs=2", "0,1,2,3", {"0,2", "1,3"}),
        ("submitit_local", "0,1", {"0", "1"}),
    ],
)
def test_gpus_are_shared_out_among_the_jobs_of_a_sweep(
    launcher: str, gpus: str, shares: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if needs(launcher.split()[0]).args[0]:
        pytest.skip("the launcher is not installed")
    # All processes believe in these GPUs; the jobs train on the CPU.
    (tmp_path / "sitecustomize.py").write_text(
        f"from animegen.launch import slots\nslots.list_gpus = lambda: {gpus.split(',')!r}\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    quickstart = tiny("experiment=animegan/quickstart", "train_steps=1", "device=cpu")
    quickstart.remove("threads=1")
    words = (
        *quickstart,
        "+callbacks.share={_target_:tests.integration.test_sweep.Share}",
        f"hydra/launcher={launcher.split()[0]}",
    )
    grid = ("ablation=none,animegan/no_discriminator", "seed=0,1", *launcher.split()[1:])
    done = command("train", "-m", *words, *grid, f"output={tmp_path / 'out'}", cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    found = runs(tmp_path / "out")
    assert len(found) == 4
    assert {(bool(run["config"]["ablations"]), run["config"]["seed"]) for run in found.values()} == {
        *((ablated, seed) for ablated in (False, True) for seed in (0, 1))
    }
    told = [json.loads((tmp_path / "out" / name / "share.json").read_text()) for name in found]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in told} == shares
    assert {each["OMP_NUM_THREADS"] for each in told} == {str(max(1, slots.count_cores() // 2))}
    for share in shares:  # never two at a time on one
        times = sorted((each["began"], each["ended"]) for each in told if each["CUDA_VISIBLE_DEVICES"] == share)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(times))


def needs(launcher: str) -> pytest.MarkDecorator:
    try:
        there = importlib.util.find_spec(launchers.LAUNCHERS[launcher][0]) is not None
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
        "toy/seed0-0": 0,
        "toy/seed1-1": 1,
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
