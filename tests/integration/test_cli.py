"""The command line: verbs, lists, mistakes and their remedies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from animegen import losses
from animegen.cli import bench, doctor, evaluate, listing
from animegen.cli import main as cli
from animegen.cli import train as train_verb
from tests.support import refused, run_verb, tiny

TOY = ("experiment=toy/quickstart",)


def test_animegen_alone_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    for name, entry in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.about)}$", text, re.MULTILINE)


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_list_shows_models_and_filters(capsys: pytest.CaptureFixture[str]) -> None:
    assert listing.main(["models", "animegan/*"]) == 0
    text = capsys.readouterr().out
    assert "animegan/v2_lite" in text
    assert "toy" not in text


def test_list_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'models'?" in refused(capsys, listing.main(["modles"]))


def test_list_without_a_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert "No models match 'tyo'. Did you mean 'toy'?" in refused(capsys, listing.main(["models", "tyo"]))


def test_doctor_reports_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    assert f"torch                  {torch.__version__.split('+')[0]}" in text
    assert "features=vgg19" in text


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train_step=5"], "no key 'train_step'.*Did you mean 'train_steps'"),
        (["resume=nowhere.ckpt"], "no checkpoint at 'nowhere.ckpt'"),
        (["resume=last", "runs=nowhere"], "no checkpoint below 'nowhere'"),
        ([*TOY, "model.generator._target_=animegen.models.toy.networks.ToyGenerato"], "Did you mean 'ToyGenerator'"),
        ([*TOY, "+model.generator.chanels=3"], "ToyGenerator has no setting 'chanels'. Did you mean 'channels'"),
        ([*TOY, "+model.objectives.generator.l1.wieght=3"], "unknown key 'wieght'.*Did you mean 'weight'"),
        ([*TOY, "data.style=noir"], "ToonWorld has no look 'noir'"),
        ([*TOY, "+callbacks.previews.evry=3"], "Previews has no setting 'evry'. Did you mean 'every'"),
        ([*TOY, "callbacks.checkpoints.every=0"], "callbacks.checkpoints.every=0 is not valid: use an integer from 1"),
        ([*TOY, "+logger.tensorboard.flush_sec=1"], "flush_sec"),
        ([*TOY, "trainer.precision=half"], "trainer cannot be built from this configuration.*half"),
        (["-m", "sed=0,1"], "There is no key 'sed'.*Did you mean 'seed'"),
    ],
)
def test_mistakes_end_in_one_sentence(
    overrides: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, run_verb(train_verb.main, *overrides, "device=cpu", f"output={tmp_path / 'run'}"))
    assert re.search(words, message), message
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize("words", [["device=cuda"], ["trainer=gpu"]])
def test_devices_that_are_not_there(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run_verb(train_verb.main, *TOY, *words, f"output={tmp_path / 'run'}")
    assert re.search(r"no usable CUDA device|accelerator is not available", refused(capsys, code))


@pytest.mark.parametrize(
    ("verb", "given", "words"),
    [
        (evaluate, ["checkpoint=last", "runs=nowhere"], "no checkpoint below 'nowhere'"),
        (evaluate, [], r"Missing on the command line: checkpoint=\.\.\."),
        (evaluate, ["checkpont=last"], "no key 'checkpont'.*Did you mean 'checkpoint'"),
        (bench, ["model=tyo"], "no option 'model/tyo'. Did you mean 'model/toy'"),
        (bench, ["data=nothing"], "only toonworld"),
        (bench, ["secnds=1"], "no key 'secnds'.*Did you mean 'seconds'"),
        (doctor, ["now"], "takes no keys"),
        (listing, ["models", "a", "b"], "one word too many"),
    ],
)
def test_mistakes_of_other_verbs(
    verb: object, given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, run_verb(verb.main, *given))  # type: ignore[attr-defined]
    assert re.search(words, message), message


def test_unwritable_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    words = tiny(*TOY, f"output={tmp_path / 'file' / 'run'}")
    assert "cannot be written" in refused(capsys, run_verb(train_verb.main, *words))


def test_debug_shows_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANIMEGEN_DEBUG", "")  # and back to what it was when the test is over
    assert run_verb(cli.main, "train", "--debug", "train_steps=0", f"output={tmp_path / 'run'}") == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_of_train_explains_keys_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(cli.main, "train", "--help") == 0
    text = capsys.readouterr().out
    assert "animegen train experiment=animegan/quickstart" in text
    assert re.search(r"^  experiment +animegan/", text, re.MULTILINE)
    assert "toy/quickstart" in text
    assert re.search(r"^  precision +auto, bf16, fp32$", text, re.MULTILINE)


@pytest.mark.parametrize("verb", [evaluate, bench, listing, doctor])
def test_help_of_the_other_verbs(verb: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb(verb.main, "--help") == 0  # type: ignore[attr-defined]
    assert capsys.readouterr().out.startswith("animegen ")


def test_the_configuration_can_be_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_verb(train_verb.main, *TOY, "--cfg", "job", "seed=17") == 0  # in any order
    text = capsys.readouterr().out
    assert "seed: 17" in text
    assert "_target_: animegen.models.toy.Toy" in text
    assert not list(tmp_path.iterdir())


def test_losses_are_listed_as_the_package_documents_them() -> None:
    expected = {name: (getattr(losses, name).__doc__ or "").split("\n")[0].rstrip(".") for name in losses.__all__}
    assert dict(listing.entries("losses")) == expected
