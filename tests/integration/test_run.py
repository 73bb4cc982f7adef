"""One run: its folder, how it can end, and the choices of debug, precision and logger."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from animegen import load_model
from animegen.cli import evaluate
from animegen.cli import train as train_verb
from animegen.config.compose import register
from animegen.engine import AnimegenError
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.lightning import LightningAdapter
from animegen.launch import run
from tests.support import assert_same_state, refused, run_verb, tiny, train

TOY = ("experiment=toy/quickstart",)


class AtStep(pl.Callback):
    """Does something while step 3 is being trained."""

    do: Callable[[], None] = staticmethod(lambda: None)

    def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        if module.train_step == 2:
            type(self).do()


AT_STEP = "+callbacks.at={_target_:tests.integration.test_run.AtStep}"


def go(folder: Path, *words: str) -> int:
    return run_verb(train_verb.main, *tiny(*TOY, *words), f"output={folder}")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_a_run_folder_tells_everything(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    folder = train(*TOY, "train_steps=4", "val_every=2", "evaluate=true", "logger=csv", output=tmp_path / "run")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert {name for name in visible(folder) if not name.startswith("events")} == {
        *("run.json", "config", "checkpoints", "previews", "metrics.csv", "hparams.yaml"),
        *("scores.json", "table.md", "strip.png", "samples"),
    }
    told = record(folder)
    assert told["status"] == "finished"
    assert told["evaluation"] == json.loads((folder / "scores.json").read_text())
    assert {"model", "identity"} <= set(told["evaluation"]["methods"])
    register()
    config = OmegaConf.load(folder / "config" / "config.yaml")
    saved = OmegaConf.to_container(config, resolve=True)
    assert saved == told["config"] == read_checkpoint(folder)["animegen"]["config"]
    assert OmegaConf.load(folder / "config" / "overrides.yaml") == told["overrides"]
    with (folder / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    assert list(rows) == [2, 4]
    assert float(rows[4]["val/psnr"]) == told["metrics"]["val/psnr"]
    assert math.isfinite(float(rows[4]["train/generator/total"]))


def test_a_run_is_neither_trained_over_nor_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(*TOY, "train_steps=1", output=tmp_path / "run")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert "already holds a run" in refused(capsys, go(folder, "train_steps=2", "seed=9"))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_overwrite_replaces_the_run_and_leaves_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert go(folder, "train_steps=5", "logger=csv", "val_every=5", "evaluate=true") == 0
    (folder / "notes.txt").write_text("mine")
    (folder / "checkpoints" / "step-0000005.ckpt").touch()
    old_events = {path.name for path in folder.glob("events*")}
    assert go(folder, "train_steps=1", "overwrite=true", "logger=tensorboard") == 0
    assert record(folder)["train_step"] == 1
    assert [name for name in visible(folder) if not name.startswith("events")] == [
        *("checkpoints", "config", "hparams.yaml", "notes.txt", "previews", "run.json")
    ]
    assert [path.name for path in (folder / "previews").iterdir()] == ["step-0000001.png"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
    assert not old_events & {path.name for path in folder.glob("events*")}


def test_a_folder_that_is_no_run_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("a: 1")
    assert go(tmp_path, "train_steps=1", "overwrite=true") == 0
    assert (tmp_path / "config" / "mine.yaml").read_text() == "a: 1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_loses_nothing(
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handler = signal.getsignal(number)
    monkeypatch.setattr(AtStep, "do", lambda: os.kill(os.getpid(), number))
    assert go(tmp_path / "run", AT_STEP, "train_steps=5") == 130
    assert signal.getsignal(number) == handler
    error = capsys.readouterr().err
    assert "animegen: interrupted." in error
    assert caplog.messages[-1] == f"stopped in train step 3; to continue: animegen train resume={tmp_path / 'run'}"
    assert "Traceback" not in error
    assert record(tmp_path / "run")["status"] == "interrupted"
    assert read_checkpoint(tmp_path / "run")["animegen"]["train_step"] == 3
    monkeypatch.setattr(AtStep, "do", lambda: None)
    train(f"resume={tmp_path / 'run'}", "trust=true")
    assert record(tmp_path / "run")["status"] == "finished"
    assert record(tmp_path / "run")["resumed_at"] == 3
    whole = train(*TOY, "train_steps=5", output=tmp_path / "whole")
    assert_same_state(read_checkpoint(whole), read_checkpoint(tmp_path / "run"))


def test_an_interruption_waits_for_the_validation_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AtStep, "do", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert go(tmp_path / "run", AT_STEP, "train_steps=5", "val_every=3") == 130
    assert "val/psnr" in read_checkpoint(tmp_path / "run")["animegen"]["metrics"]


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AtStep, "do", lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    assert go(tmp_path / "run", AT_STEP, "train_steps=5", "callbacks.checkpoints.every=1") == 130
    assert record(tmp_path / "run")["status"] == "interrupted"
    assert read_checkpoint(tmp_path / "run")["animegen"]["train_step"] == 2


def fail(error: Exception) -> Callable[[], None]:
    def do() -> None:
        raise error

    return do


def test_a_mistake_that_shows_during_training_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AtStep, "do", fail(AnimegenError("this is wrong: do that.")))
    message = refused(capsys, go(tmp_path / "run", AT_STEP, "train_steps=5"))
    assert message == "animegen: this is wrong: do that."
    assert record(tmp_path / "run")["status"] == "crashed"
    assert record(tmp_path / "run")["error"] == "AnimegenError: this is wrong: do that."


def test_too_little_memory_names_the_remedies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(AtStep, "do", fail(torch.OutOfMemoryError("CUDA out of memory")))
    assert "set model.accumulate=2" in refused(capsys, go(tmp_path / "run", AT_STEP, "train_steps=5"))


def test_a_failing_evaluation_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "evaluate_model", lambda *_: fail(RuntimeError("no score"))())
    with pytest.raises(RuntimeError, match="no score"):
        go(tmp_path / "run", "train_steps=1", "evaluate=true")
    assert record(tmp_path / "run")["status"] == "crashed"
    assert record(tmp_path / "run")["error"] == "RuntimeError: no score"


class Poison(torch.nn.Module):
    """A loss that is no number when it is computed for the third time."""

    calls = 0

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return image.mean() * (1.0 if self.calls < 3 else math.nan)


def test_a_poisoned_loss_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poison = "{loss:{_target_:tests.integration.test_run.Poison},reads:{image:fake}}"
    words = (f"+model.objectives.generator.poison={poison}", "train_steps=9", "callbacks.checkpoints.every=1")
    code = go(tmp_path / "run", *words)
    assert "The term 'poison' of 'generator' became nan in train step 3" in refused(capsys, code)
    model = load_model(tmp_path / "run", device="cpu")
    assert model.train_step == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_debug_fdr(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [word for word in tiny(*TOY) if not word.startswith(("val_every", "evaluate"))]
    assert run_verb(train_verb.main, *words, "debug=fdr", f"output={folder}") == 0
    assert record(folder)["train_step"] == 3
    assert "val/psnr" in record(folder)["metrics"]
    assert "evaluation" not in record(folder)


def test_debug_overfit(tmp_path: Path) -> None:
    folder = train(*TOY, "debug=overfit", "train_steps=60", "logger=csv", output=tmp_path / "run")
    with (folder / "metrics.csv").open() as file:
        loss = [float(row["train/generator/l1"]) for row in csv.DictReader(file) if row["train/generator/l1"]]
    assert all(after < before for before, after in pairwise(loss)), loss
    assert loss[-1] < 0.75 * loss[0]


def test_debug_profiler(tmp_path: Path) -> None:
    folder = train(*TOY, "debug=profiler", "train_steps=2", output=tmp_path / "run")
    assert "run_training_batch" in (folder / "fit-profile.txt").read_text()


def test_a_model_that_needs_pairs_refuses_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tiny("model=toy", "data=unpaired/toonworld", f"output={tmp_path / 'run'}", "train_steps=1")
    assert "data=paired/toonworld" in refused(capsys, run_verb(train_verb.main, *words))


@pytest.mark.parametrize(("model", "data"), [("toy", "paired"), ("animegan/v2_lite", "unpaired")])
def test_bf16_trains_and_keeps_weights_in_full_precision(model: str, data: str, tmp_path: Path) -> None:
    words = (f"model={model}", f"data={data}/toonworld", "precision=bf16", "features=squeezenet1_1")
    folder = train(*words, "train_steps=3", "callbacks.log.steps=1", output=tmp_path / "run")
    told = record(folder)
    losses = [value for name, value in told["metrics"].items() if name.endswith("/total")]
    assert losses
    assert all(map(math.isfinite, losses))
    weights = [v for v in read_checkpoint(folder)["state_dict"].values() if isinstance(v, torch.Tensor)]
    assert {value.dtype for value in weights if value.is_floating_point()} == {torch.float32}


def test_without_callbacks_and_loggers_a_run_still_has_its_record(tmp_path: Path) -> None:
    assert go(tmp_path / "run", "callbacks=none", "logger=none", "train_steps=2") == 0
    assert record(tmp_path / "run")["status"] == "finished"
    assert visible(tmp_path / "run") == ["config", "run.json"]


def test_compiled_networks_have_the_same_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, *_, **__: compiled.append(type(self).__name__))
    plain = train(*TOY, "train_steps=1", output=tmp_path / "plain")
    assert compiled == []
    folder = train(*TOY, "train_steps=1", "model.compile=[generator]", output=tmp_path / "compiled")
    assert compiled == ["ToyGenerator"]
    assert_same_state(read_checkpoint(plain), read_checkpoint(folder))


def test_init_begins_anew_with_the_weights_of_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(*TOY, "train_steps=3", "seed=1", output=tmp_path / "runs/first")
    # A rate of 0 keeps what the training began with; the checkpoint's averages, where there are some, are taken.
    still = [*TOY, "model.optimizers.generator.lr=0", "evaluate=false", f"runs={tmp_path / 'runs'}"]
    again = train(*still, "train_steps=1", "init=last", output=tmp_path / "again")
    before, after = read_checkpoint(first), read_checkpoint(again)
    assert after["animegen"]["train_step"] == 1
    assert after["animegen"]["config"]["init"] == str(first / "checkpoints/last.ckpt")
    begun = {k: v for k, v in after["state_dict"].items() if k.startswith("generator.")}
    averaged = before["animegen"].get("ema", {}).get("averages", {}).get("generator", {})
    expected = {k: averaged.get(k.removeprefix("generator."), before["state_dict"][k]) for k in begun}
    assert begun
    assert all(torch.equal(begun[k], expected[k]) for k in begun)
    # Going on with that run does not look at init= again.
    shutil.rmtree(first)
    assert train(*still, "train_steps=2", f"resume={again}", output=again) == again
    assert "init" in record(again)["config"]

    wide = ["train_steps=1", f"init={again}", "model.generator.channels=4"]
    assert go(tmp_path / "wide", *wide) == 2
    assert "is another network than this model's" in capsys.readouterr().err
    assert not any((tmp_path / "wide").iterdir())
    assert go(tmp_path / "none", "init=nowhere") == 2
    assert "There is no checkpoint at 'nowhere'" in capsys.readouterr().err


def test_missing_features_are_found_before_data_are_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("data=unpaired/toonworld", "size=tiny", "device=cpu", f"output={tmp_path / 'run'}")
    message = refused(capsys, run_verb(train_verb.main, "model=animegan/v1", *words))
    assert "generator.content, generator.style need perceptual features" in message
    assert "set features=vgg19 or features=squeezenet1_1" in message
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("model", "features", "name"),
    [("toy", "none", "squeezenet1_1_random"), ("animegan/paired", "random", "vgg19_random")],
)
def test_eval_scores_with_the_features_of_the_training(model: str, features: str, name: str, tmp_path: Path) -> None:
    words = (f"model={model}", f"features={features}", "data=paired/toonworld", "train_steps=1", "evaluate=true")
    run, scores = train(*words, output=tmp_path / "run"), tmp_path / "scores"
    assert run_verb(evaluate.main, f"checkpoint={run}", f"output={scores}") == 0
    at_end, later = (json.loads((f / "scores.json").read_text())["methods"] for f in (run, scores))
    assert any(name in metric for metric in later["model"])
    assert at_end["model"].keys() == later["model"].keys()


def test_eval_of_a_run_and_of_other_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(*TOY, "train_steps=2", output=tmp_path / "run")
    scores = tmp_path / "scores"
    words = (f"checkpoint={folder}", f"output={scores}", "features=none", "device=cpu")
    assert run_verb(evaluate.main, *words) == 0
    own = json.loads((scores / "scores.json").read_text())
    assert own["methods"]["model"]["psnr"]["n"] == 2
    assert not any("perceptual" in metric for metric in own["methods"]["model"])
    capsys.readouterr()
    assert "already holds scores" in refused(capsys, run_verb(evaluate.main, *words))
    # One value changed: the rest of the data is that of the run.
    before = torch.get_num_threads()
    try:
        assert run_verb(evaluate.main, *words, "overwrite=true", "data.style=dusk", "threads=3") == 0
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    dusk = json.loads((scores / "scores.json").read_text())
    assert dusk["methods"]["model"]["psnr"]["n"] == 2
    assert dusk["methods"]["identity"]["psnr"] != own["methods"]["identity"]["psnr"]
    # Other data altogether.
    other = ("data=unpaired/toonworld", "data.scenes=2", "data.frames_per_scene=1", "data.test_scenes=3")
    assert run_verb(evaluate.main, *words, "overwrite=true", *other) == 0
    assert json.loads((scores / "scores.json").read_text())["methods"]["model"]["psnr"]["n"] == 3
