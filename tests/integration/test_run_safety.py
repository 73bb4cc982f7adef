"""What a mistake, a failure or a file of the user does to a run: nothing that was there is lost."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from animegen.cli import evaluate
from animegen.cli import train as train_verb
from animegen.engine import AnimegenError
from animegen.engine.callbacks.checkpoints import Checkpoints
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.lightning import LightningAdapter
from animegen.media.images import write_image
from animegen.outputs import STATE
from tests.support import assert_same_state, refused, run_verb, tiny, train

TOY = ("experiment=toy/quickstart",)
SCORED = (*TOY, "evaluate=true", "report=true", "logger=csv", "val_every=1")


class FailAt(pl.Callback):
    """Fails in the middle of a train step."""

    step = -1

    def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        if module.train_step + 1 == self.step:
            raise RuntimeError("failed on purpose")


class StopAt(pl.Callback):
    """Ends the training before its last step, as early stopping does."""

    def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        trainer.should_stop = module.train_step == 2


FAIL = "+callbacks.fail={_target_:tests.integration.test_run_safety.FailAt}"


def go(*words: str) -> int:
    return run_verb(train_verb.main, *tiny(*TOY, *words))


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def record(folder: Path, name: str = "run.json") -> dict[str, Any]:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs to copy: finished with scores and a report, and failed in the third step of four."""
    folder = tmp_path_factory.mktemp("runs")
    train(*SCORED, "train_steps=2", FAIL, output=folder / "finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FailAt, "step", 3)
        with pytest.raises(RuntimeError, match="on purpose"):
            go("train_steps=4", "callbacks.checkpoints.every=1", FAIL, f"output={folder / 'interrupted'}")
    return folder


@pytest.fixture
def finished(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs / "finished", tmp_path / "run")


@pytest.fixture
def interrupted(runs: Path, tmp_path: Path) -> Path:
    return shutil.copytree(runs / "interrupted", tmp_path / "run")


def same_but_events(before: dict[str, bytes], folder: Path) -> bool:
    """Tell whether a folder holds the same files, but for how often its record was written."""
    now = content(folder)
    return {**before, STATE: b""} == {**now, STATE: b""}


#: Mistakes that show when the configuration is checked, when it is built, when the training begins, in its first step.
MISTAKES = {
    "optimizer": ["model.optimizers.generator.lr=abc"],
    "terms": ["model.objectives.generator.l1.reads.image=nothing"],
    "photos": ["data=paired/folders", "data.photos=nowhere", "data.anime=nowhere"],
    "length": ["trainer.max_steps=1"],
    "fast": ["+trainer.fast_dev_run=true"],
    "clip": ["model.clip=-1"],
    "clip of an update": ["model.clip={generator:0}"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_does_not_cost_the_run_that_is_replaced(
    mistake: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(finished)
    refused(capsys, go("train_steps=3", *MISTAKES[mistake], f"output={finished}", "overwrite=true"))
    assert same_but_events(before, finished)


def test_a_failure_before_the_first_checkpoint_returns_the_replaced_run(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(finished)
    other = train(*TOY, "train_steps=1", output=tmp_path / "other")
    monkeypatch.setattr(FailAt, "step", 3)
    for words in (["train_steps=5"], [f"resume={other}", "train_steps=5"]):
        with pytest.raises(RuntimeError, match="on purpose"):
            run_verb(train_verb.main, *tiny(*TOY, *words, FAIL), f"output={finished}", "overwrite=true")
        assert same_but_events(before, finished)
    # With a checkpoint before it, the new run has replaced the old one.
    with pytest.raises(RuntimeError, match="on purpose"):
        go("train_steps=5", "callbacks.checkpoints.every=1", FAIL, f"output={finished}", "overwrite=true")
    assert record(finished)["status"] == "crashed"
    assert read_checkpoint(finished)["animegen"]["train_step"] == 2
    assert not (finished / "scores.json").exists()
    assert not list(finished.glob(".replaced-*"))


#: What a resumed run may not change, or cannot load.
REFUSED = {
    "length": (["train_steps=1"], "give a larger train_steps="),
    "optimizer": (["train_steps=9", "model.optimizers.generator.lr=1"], "model.optimizers cannot change"),
    "network": (["train_steps=9", "model.generator.channels=4"], "do not fit this model"),
    "data": (["train_steps=9", "data=paired/folders", "data.photos=a", "data.anime=b"], "no key 'data.scenes'"),
    "terms": (["train_steps=9", "model.objectives.generator.l1.reads.image=nothing"], "nothing"),
}


@pytest.mark.parametrize("why", REFUSED)
@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_a_refused_resume_changes_nothing(
    state: str, why: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = request.getfixturevalue(state)
    before = content(folder)
    words, message = REFUSED[why]
    words = [f"resume={folder}", "trust=true", "logger=csv", *words]
    assert message in refused(capsys, run_verb(train_verb.main, *words))
    assert same_but_events(before, folder)


def test_record_and_scores_of_a_finished_run_stay_until_it_is_finished_again(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(finished)
    monkeypatch.setattr(FailAt, "step", 4)
    with pytest.raises(RuntimeError, match="on purpose"):
        run_verb(train_verb.main, f"resume={finished}", "trust=true", "train_steps=5", "callbacks.checkpoints.every=1")
    for name in ("run.json", "scores.json", "table.md", "strip.png", "report.html", "samples/index.json"):
        assert content(finished)[name] == before[name], name
    assert record(finished, "resumed.json")["status"] == "crashed"
    assert read_checkpoint(finished)["animegen"]["train_step"] == 3
    monkeypatch.setattr(FailAt, "step", -1)
    assert run_verb(train_verb.main, f"resume={finished}", "trust=true") == 0  # with the overrides of the attempt
    assert (record(finished)["status"], record(finished)["train_step"]) == ("finished", 5)
    assert record(finished)["evaluation"] == record(finished, "scores.json")
    assert record(finished)["seconds"]["total"] > 0
    assert not (finished / "resumed.json").exists()
    assert content(finished)["report.html"] != before["report.html"]
    # Scores of another model are worse than none.
    assert (
        run_verb(train_verb.main, f"resume={finished}", "trust=true", "train_steps=6", "evaluate=false", "report=false")
        == 0
    )
    assert not {"scores.json", "table.md", "strip.png", "report.html"} & content(finished).keys()


def test_an_attempt_without_a_checkpoint_does_not_occupy_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(FailAt, "step", 2)
    with pytest.raises(RuntimeError, match="on purpose"):
        go("train_steps=3", "logger=csv", "callbacks.log.steps=1", FAIL, f"output={folder}")
    assert record(folder)["error"] == "RuntimeError: failed on purpose"
    (folder / "notes.txt").write_text("mine")
    assert go("train_steps=1", "logger=none", f"output={folder}") == 0
    assert record(folder)["status"] == "finished"
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "metrics.csv").exists()


#: Names that a command writes, and files of the user that have them.
TAKEN = {
    "train": ["run.json", "config/config.yaml", "checkpoints/best.ckpt", "previews", "strip.png", "report.html"],
    "eval": ["scores.json", "table.md", "strip.png", "samples/index.json", "samples"],
}


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in TAKEN.items() for name in names])
@pytest.mark.parametrize("overwrite", ["overwrite=false", "overwrite=true"])
def test_files_of_the_user_are_never_replaced(
    command: str, name: str, overwrite: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "proj" / "samples").mkdir(parents=True) if name != "samples" else (tmp_path / "proj").mkdir()
    if name != "samples":
        (tmp_path / "proj" / "samples" / "drum.wav").write_text("mine")
    (tmp_path / "proj" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "proj" / name).write_text("mine")
    before = content(tmp_path / "proj")
    words = [f"output={tmp_path / 'proj'}", overwrite]
    if command == "train":
        code = go("train_steps=1", "evaluate=true", "report=true", *words)
    else:
        code = run_verb(
            evaluate.main, f"checkpoint={runs / 'finished'}", "features=none", "samples=1", "device=cpu", *words
        )
    assert "move it, or choose another output=" in refused(capsys, code)
    assert content(tmp_path / "proj") == before


def test_eval_replaces_only_its_own_scores(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (f"checkpoint={runs / 'finished'}", "features=none", "device=cpu", f"output={tmp_path / 'out'}")
    assert run_verb(evaluate.main, *words) == 0
    (tmp_path / "out" / "samples" / "mine.png").write_text("mine")
    before = content(tmp_path / "out")

    def full(*_: object) -> None:
        raise AnimegenError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("animegen.launch.evaluation.save_samples", full)
        assert run_verb(evaluate.main, *words, "samples=1", "overwrite=true") == 2
    assert same_but_events(before, tmp_path / "out")
    assert run_verb(evaluate.main, *words, "samples=1", "overwrite=true") == 0
    assert record(tmp_path / "out", "scores.json")["methods"]["model"]["psnr"]["n"] == 1
    assert (tmp_path / "out" / "samples" / "mine.png").read_text() == "mine"
    assert not (tmp_path / "out" / "samples" / "photo" / "1.png").exists()


# --- exact resume with files -------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path: Path) -> list[str]:
    """The words that train on folders of pairs."""
    for number in range(6):
        image = torch.randint(256, (3, 40, 48), dtype=torch.uint8)
        for name in ("photos", "anime"):
            write_image(tmp_path / name / f"{number}.png", image)
    return ["data=paired/folders", f"data.photos={tmp_path / 'photos'}", f"data.anime={tmp_path / 'anime'}"]


@pytest.mark.parametrize("change", ["added", "removed", "changed in size"])
def test_other_training_files_are_not_resumed(
    change: str, pairs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert go(*pairs, "train_steps=2", f"output={folder}") == 0
    before = content(folder)
    for name in ("photos", "anime"):
        if change == "added":
            write_image(tmp_path / name / "6.png", torch.zeros(3, 40, 48, dtype=torch.uint8))
        elif change == "removed":
            (tmp_path / name / "0.png").unlink()
        else:
            write_image(tmp_path / name / "0.png", torch.zeros(3, 40, 48, dtype=torch.uint8))
    message = refused(capsys, run_verb(train_verb.main, f"resume={folder}", "train_steps=4"))
    assert f"2 {change} (such as '{tmp_path / 'anime'}/" in message
    assert "init=" in message
    assert same_but_events(before, folder)
    assert go(*pairs, "train_steps=2", f"init={folder}", f"output={tmp_path / 'new'}") == 0
    # Other data on purpose are no mistake.
    assert run_verb(train_verb.main, f"resume={folder}", "train_steps=4", "data.holdout=0.2") == 0


@pytest.mark.parametrize("place", ["photos/run", "photos/deep/run", "photos"])
def test_a_run_among_the_photos_is_not_trained_on(
    place: str, pairs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*pairs, "train_steps=4", "evaluate=true", "callbacks.checkpoints.every=1", "callbacks.previews.every=1"]
    whole = tmp_path / "whole"
    assert go(*words, f"output={whole}") == 0
    monkeypatch.setattr(FailAt, "step", 3)
    with pytest.raises(RuntimeError, match="on purpose"):
        go(*words, FAIL, f"output={tmp_path / place}")
    assert list((tmp_path / place / "previews").glob("*.png"))
    monkeypatch.setattr(FailAt, "step", -1)
    assert run_verb(train_verb.main, f"resume={tmp_path / place}", "trust=true") == 0
    assert_same_state(read_checkpoint(whole), read_checkpoint(tmp_path / place))


def test_a_run_refused_for_its_data_does_not_occupy_the_folder(
    pairs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*pairs, "train_steps=1", f"output={tmp_path / 'run'}"]
    for name in ("photo", "anime"):
        write_image(tmp_path / f"one_{name}" / "a.png", torch.zeros(3, 64, 64, dtype=torch.uint8))
    few = [f"data.photos={tmp_path / 'one_photo'}", f"data.anime={tmp_path / 'one_anime'}"]
    message = refused(capsys, go(*words, *few))
    assert "data.holdout=0 data.val=null data.stills=null" in message
    assert go(*words) == 0
    # The keys that it names allow a single image.
    named = ["data.holdout=0", "data.val=null", "data.stills=null"]
    assert go(*words, *few, *named, f"output={tmp_path / 'single'}") == 0


def test_a_run_is_not_replaced_by_one_that_trains_on_its_images(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"data.{key}={finished / 'samples' / 'photo'}" for key in ("photos", "anime")]
    code = go("data=paired/folders", *folders, "train_steps=1", f"output={finished}", "overwrite=true")
    assert "is a training file" in refused(capsys, code)
    assert record(finished)["status"] == "finished"


# --- what a record says ------------------------------------------------------------------------------------------


def test_a_training_that_ends_early_is_not_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = "+callbacks.stop={_target_:tests.integration.test_run_safety.StopAt}"
    message = refused(capsys, go("train_steps=4", stop, f"output={tmp_path / 'run'}"))
    assert "ended at train step 2 of 4" in message
    assert record(tmp_path / "run")["status"] == "crashed"
    assert run_verb(train_verb.main, f"resume={tmp_path / 'run'}", "~callbacks.stop") == 0
    assert record(tmp_path / "run")["status"] == "finished"


def test_durations_do_not_depend_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    folder = train(*TOY, "train_steps=1", output=tmp_path / "run")
    assert all(0 <= seconds < 600 for seconds in record(folder)["seconds"].values())


def test_the_best_checkpoint_survives_a_kill_between_it_and_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("train_steps=3", "val_every=1", "callbacks.checkpoints.monitor=val/psnr", "callbacks.checkpoints.mode=min")
    whole = train(*TOY, *words, "callbacks.checkpoints.keep=-1", output=tmp_path / "whole")
    scores = {n: read_checkpoint(whole / f"checkpoints/step-{n:07d}.ckpt")["animegen"]["metrics"] for n in (1, 2, 3)}
    best = min(scores, key=lambda n: scores[n]["val/psnr"])
    assert read_checkpoint(whole / "checkpoints" / "best.ckpt")["animegen"]["train_step"] == best
    real = Checkpoints.save

    def killed(self: Checkpoints, trainer: pl.Trainer, module: LightningAdapter) -> None:
        if module.train_step == best:
            raise RuntimeError("killed")
        real(self, trainer, module)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(RuntimeError, match="killed"):
            go(*words, f"output={folder}")
    if best > 1:
        train(f"resume={folder}")
        assert read_checkpoint(folder / "checkpoints" / "best.ckpt")["animegen"]["train_step"] == best
    # In another folder the best so far goes along, unless it is of a later step than the checkpoint.
    for step in (1, 2):
        other = tmp_path / f"other{step}"
        train(f"resume={whole}/checkpoints/step-{step:07d}.ckpt", output=other)
        assert read_checkpoint(other / "checkpoints" / "best.ckpt")["animegen"]["train_step"] == best


# --- output streams ----------------------------------------------------------------------------------------------


class Late(io.StringIO):
    """A stream that finds out whether the results existed when the first of them was printed."""

    def __init__(self, done: Callable[[], bool]) -> None:
        super().__init__()
        self._done, self.early = done, ""

    def write(self, text: str) -> int:
        if not self._done():
            self.early += text
        return len(text)


@pytest.mark.parametrize("command", ["train", "eval"])
def test_results_are_written_before_they_are_printed(
    command: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"

    def done() -> bool:
        if command == "train":
            return (folder / "report.html").exists() and record(folder)["status"] == "finished"
        return (folder / "scores.json").exists()

    stream = Late(done)
    monkeypatch.setattr(sys, "stdout", stream)
    if command == "train":
        assert go("train_steps=1", "evaluate=true", "report=true", f"output={folder}") == 0
    else:
        words = (f"checkpoint={runs / 'finished'}", "features=none", "device=cpu", f"output={folder}")
        assert run_verb(evaluate.main, *words) == 0
    assert stream.early == ""
