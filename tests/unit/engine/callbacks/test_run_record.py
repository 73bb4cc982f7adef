"""run.json in each of its states, and the hparams of TensorBoard."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import pytorch_lightning as pl
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

import animegen
from animegen.engine.callbacks import RunRecord, TensorBoardLogger
from animegen.engine.lightning import LightningAdapter
from animegen.engine.machine import git_state
from tests.unit.engine.callbacks.small import Small, fit

FACTS = {
    "config": {"seed": 3, "train_steps": 4, "ablations": {"no_style": True, "no_tv": False}},
    "choices": {"experiment": "toy/quickstart", "model": "toy", "size": "tiny"},
    "overrides": ["experiment=toy/quickstart", "output=a b"],
}


def read(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_a_finished_run(tmp_path: Path) -> None:
    record, model = RunRecord(tmp_path, FACTS), Small(scores=[1.0, 2.0])
    trainer = fit(model, tmp_path, record, logger=TensorBoardLogger(str(tmp_path)), steps=4, val_every=2)
    assert read(tmp_path)["status"] == "trained"
    evaluation = {"methods": {"model": {"psnr": {"mean": 12.5}, "ssim": {"mean": None}}}}
    record.finish(trainer, model.train_step, evaluation)
    told = read(tmp_path)
    assert told["status"] == "finished"
    assert told["train_step"] == 4
    assert told["metrics"]["val/score"] == 2.0
    assert told["metrics"]["train/generator/total"] == pytest.approx(0.7)  # weights 1, .9, .8, .7
    assert told["parameters"] == {"generator": 1}
    assert told["evaluation"] == evaluation
    assert told["command"] == "animegen train experiment=toy/quickstart 'output=a b'"
    assert told["seconds"].keys() == {"prepare", "train", "total"}
    assert told["versions"]["animegen"]
    assert told["machine"]["cores"] > 0
    _check_hparams(tmp_path)


def _check_hparams(folder: Path) -> None:
    events = EventAccumulator(str(folder)).Reload()
    data = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
    values = {name: value.string_value or value.number_value for name, value in start.hparams.items()}
    assert values["experiment"] == "toy/quickstart"
    assert values["ablations"] == "no_style"
    assert values["seed"] == 3
    assert [(event.step, event.value) for event in events.Scalars("eval/psnr")] == [(4, 12.5)]
    single = [tag for tag in events.Tags()["scalars"] if tag.partition("/")[0] not in ("train", "val", "opt", "perf")]
    assert single == ["eval/psnr"]  # once, and not what is not finite
    assert "_hparams_/experiment" not in events.summary_metadata  # it would hide the columns of other runs


class Raise(pl.Callback):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, *_: object) -> None:
        if module.train_step == 2:
            raise self.error


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("out of ideas"), "crashed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_run_that_failed(error: BaseException, status: str, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, SystemExit)):
        fit(Small(), tmp_path, RunRecord(tmp_path, FACTS), Raise(error))
    told = read(tmp_path)
    assert told["status"] == status
    assert told["train_step"] == 2
    assert told.get("error") == ("RuntimeError: out of ideas" if status == "crashed" else None)


def test_a_killed_run_stays_running(tmp_path: Path) -> None:
    class Look(pl.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            assert read(tmp_path)["status"] == "running"

    fit(Small(), tmp_path, RunRecord(tmp_path, FACTS), Look(), steps=1)


def test_commit_and_cleanness_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(["git", *author, *words], cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(animegen, "__file__", str(tmp_path / "code.py"))
    assert git_state() is None
    (tmp_path / "code.py").touch()
    for words in (("init",), ("add", "."), ("commit", "-m", "code")):
        git(*words)
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "code.py").write_text("1")
    (tmp_path / ".git" / "index.lock").touch()  # another git is at work
    assert git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": True}
