"""The command line: verbs, lists, mistakes and their remedies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen import cli, doctor, listing
from animegen import train as train_verb
from tests.support import TINY, command, refused


def test_animegen_alone_explains_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name, verb in cli.VERBS.items():
        assert f"  {name}" in text
        assert verb.example in text


def test_unknown_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_list_shows_models_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["models", "animegan/*"]) == 0
    text = capsys.readouterr().out
    assert "animegan/v2_lite" in text
    assert "toy" not in text


def test_list_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'models'?" in refused(capsys, listing.main(["modles"]))


def test_doctor_reports_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert f"torch                  {torch.__version__.split('+')[0]}" in text
    assert "features=vgg19" in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train_step=5"], "no key 'train_step'.*Did you mean 'train_steps'"),
        (["model.generatr.width=1"], "no key 'model.generatr.width'.*Did you mean 'model.generator.width'"),
        (["seed=abc"], "seed=abc has the wrong type"),
        (["device=gpu"], "device=gpu is not possible.*auto"),
        (["experiment=animegan/quickstrt"], "animegan/quickstrt.*Did you mean 'experiment/animegan/quickstart'"),
        (["model=animegan/v7"], "Did you mean.*animegan/v"),
        (["train_steps=0"], "train_steps must be at least 1"),
        (["resume=nowhere.ckpt"], "no checkpoint at 'nowhere.ckpt'"),
        (["model.optimizers.generator.lrr=1"], "lrr"),
    ],
)
def test_mistakes_end_in_one_sentence(
    overrides: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    message = refused(capsys, train_verb.main([*overrides, f"output={tmp_path / 'run'}"]))
    assert re.search(words, message), message


def test_a_finished_run_is_not_trained_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text("{}")
    message = refused(capsys, train_verb.main(["model=toy", "data=paired/toonworld", *TINY, f"output={tmp_path}"]))
    assert "already holds a run" in message
    assert (tmp_path / "run.json").read_text() == "{}"


def test_unwritable_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["model=toy", "data=paired/toonworld", *TINY, f"output={tmp_path / 'file' / 'run'}"]
    assert "cannot be written" in refused(capsys, train_verb.main(words))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = command("train", "--debug", "train_steps=0", f"output={tmp_path / 'run'}")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_help_of_a_verb_is_help(tmp_path: Path) -> None:
    done = command("train", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "experiment=" in done.stdout
    assert not list(tmp_path.iterdir())
