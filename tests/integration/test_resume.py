"""A run that is killed and resumed ends with the weights of the run that was not, to the bit."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from animegen.cli import train as train_verb
from animegen.engine.checkpoint import read_checkpoint
from tests.support import assert_same_state, refused, run_verb, tiny, train

STEPS = 6
SWITCH = 2  # from here on the discriminator takes part

#: Everything that has a state: two phases, EMA, a schedule, dropout, spectral norm, colour statistics, calibration.
ANIMEGAN = (
    "model=animegan/v2_lite",
    "data=unpaired/toonworld",
    "features=squeezenet1_1",
    f"model.pretrain_steps={SWITCH}",
    "model.discriminator.dropout=0.3",
    "model.ema={networks:[generator],decay:0.9}",
    "+model.schedulers.generator={_target_:animegen.engine.schedules.flat_then_linear,_partial_:true,steps:6,flat:0.2}",
    "model.clip=1.0",
    "callbacks=calibrated",
    "callbacks.calibration.batches=2",
)
TOY = ("experiment=toy/quickstart",)
OFTEN = ("val_every=2", "logger=csv", "callbacks.log.steps=1", "callbacks.checkpoints.every=1")
KILLER = "+callbacks.killer={_target_:tests.integration.test_resume.KillAt}"


class KillAt(pl.Callback):
    """Fails before a step is trained, in the middle of the run."""

    step = -1

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        if module.train_step == KillAt.step:
            raise RuntimeError("killed")


def rows(folder: Path) -> list[dict[str, str]]:
    """Return what the run logged, without its speed."""
    with (folder / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/") and v} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """Return a function that trains once what it is given."""

    @cache
    def run(words: tuple[str, ...]) -> Path:
        more = (*OFTEN, "callbacks.checkpoints.keep=-1", f"train_steps={STEPS}", KILLER)
        return train(*words, *more, output=tmp_path_factory.mktemp("whole") / "run")

    return run


@pytest.fixture(params=[TOY, ANIMEGAN], ids=["toy", "animegan"])
def whole(request: pytest.FixtureRequest, trained: Callable[[tuple[str, ...]], Path]) -> Path:
    """A run of six steps without interruption, with a checkpoint of each step."""
    return trained(request.param)


@pytest.mark.parametrize("step", [1, SWITCH, 4, *(pytest.param(step, marks=pytest.mark.slow) for step in (3, 5))])
def test_resumed_from_any_step(whole: Path, step: int, tmp_path: Path) -> None:
    resumed = train(f"resume={whole}/checkpoints/step-{step:07d}.ckpt", "trust=true", output=tmp_path / "run")
    assert_same_state(read_checkpoint(whole), read_checkpoint(resumed))
    assert rows(resumed) == [row for row in rows(whole) if int(row["step"]) > step]


@pytest.mark.parametrize(
    ("whole", "step"),
    [
        (TOY, 3),
        pytest.param(ANIMEGAN, SWITCH - 1, marks=pytest.mark.slow),
        (ANIMEGAN, SWITCH),
        (ANIMEGAN, SWITCH + 1),
        pytest.param(ANIMEGAN, SWITCH + 2, marks=pytest.mark.slow),
    ],
    indirect=["whole"],
    ids=["toy", "before", "at", "calibrating", "after"],
)
def test_killed_and_resumed_in_place(whole: Path, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = read_checkpoint(whole)["animegen"]["overrides"]
    words = [word for word in words if not word.startswith("output=")]
    monkeypatch.setattr(KillAt, "step", step)
    with pytest.raises(RuntimeError, match="killed"):
        run_verb(train_verb.main, *words, f"output={tmp_path / 'run'}")
    monkeypatch.setattr(KillAt, "step", -1)
    train(f"resume={tmp_path / 'run'}", "trust=true")
    assert_same_state(read_checkpoint(whole), read_checkpoint(tmp_path / "run"))
    # Validation at the same steps with the same results, and no step logged twice.
    assert rows(tmp_path / "run") == rows(whole)
    assert [row["step"] for row in rows(whole) if "val/psnr" in row] == ["2", "4", "6"]


def test_all_that_has_a_state_took_part(whole: Path) -> None:
    content = read_checkpoint(whole)
    if "ema" not in content["animegen"]:
        return
    factors = content["state_dict"]["objectives.generator._extra_state"]
    assert len({factors[name] for name in ("adversarial", "content", "style", "colour")}) == 4
    assert content["animegen"]["ema"]["updates"] == STEPS
    assert content["lr_schedulers"][0]["last_epoch"] == STEPS - SWITCH
    before = read_checkpoint(whole / "checkpoints" / "step-0000002.ckpt")["optimizer_states"]
    assert [bool(state["state"]) for state in before] == [True, False, False]  # pretrain, discriminator, generator


def test_validation_and_previews_change_nothing(whole: Path, tmp_path: Path) -> None:
    words = [word for word in read_checkpoint(whole)["animegen"]["overrides"] if not word.startswith("output=")]
    words += ["val_every=100", "callbacks.previews.every=1000", f"output={tmp_path / 'run'}"]
    assert run_verb(train_verb.main, *words) == 0
    assert_same_state(read_checkpoint(whole), read_checkpoint(tmp_path / "run"))


def test_killed_by_the_system_and_resumed_by_last(tmp_path: Path) -> None:
    words = tiny(*TOY, *OFTEN, "model.ema={networks:[generator],decay:0.9}", f"runs={tmp_path}/runs")
    command = [sys.executable, "-m", "animegen", "train", *words, "train_steps=100000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    end = time.time() + 120
    while not list(tmp_path.rglob("last.ckpt")) and time.time() < end:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (last,) = tmp_path.rglob("last.ckpt")
    steps = read_checkpoint(last)["animegen"]["train_step"] + 3
    # An older run beside it must not be taken for the last one.
    old = last.parent.parent.parent / "old" / "checkpoints"
    old.mkdir(parents=True)
    (old / "last.ckpt").write_text("older")
    os.utime(old / "last.ckpt", (0, 0))
    assert run_verb(train_verb.main, "resume=last", f"runs={tmp_path}/runs", f"train_steps={steps}") == 0
    whole = train(
        *TOY, *OFTEN, "model.ema={networks:[generator],decay:0.9}", f"train_steps={steps}", output=tmp_path / "w"
    )
    assert_same_state(read_checkpoint(whole), read_checkpoint(last))


def test_a_checkpoint_outside_of_a_run_cannot_be_resumed(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copyfile(toy / "checkpoints" / "last.ckpt", tmp_path / "copy.ckpt")
    words = (f"resume={tmp_path / 'copy.ckpt'}", "train_steps=3")
    assert "it is not the folder of a run" in refused(capsys, run_verb(train_verb.main, *words))
