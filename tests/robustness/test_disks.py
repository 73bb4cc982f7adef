"""Disks that are full, folders that cannot be written, and two commands that want the same one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from animegen import compare, evaluate, interpolate, prepare, stylize
from animegen import train as train_verb
from animegen.core.checkpoint import read_checkpoint
from tests.robustness.support import assert_calm, finish, run, start
from tests.robustness.test_kills import film, pixels
from tests.support import refused, run_verb, sentence, tiny, train

TOY = ("experiment=toy/quickstart",)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*TOY, "train_steps=1", output=tmp_path_factory.mktemp("toy") / "run")


def test_training_on_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    train(*TOY, "train_steps=1", output=folder)
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    room = len(before) - 1000  # for all files but the checkpoint
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".ckpt") < room
    ended = run("animegen.train", [[f"resume={folder}", "train_steps=2"]], log, room)
    said = sentence(ended.said, ended.code or 0)
    assert "cannot be written" in said
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not list(folder.rglob("*.unfinished"))
    assert run_verb(train_verb.main, f"resume={folder}", "train_steps=2") == 0  # there is room again
    assert read_checkpoint(folder)["animegen"]["train_step"] == 2


def test_a_film_on_a_full_disk(toy: Path, tmp_path: Path) -> None:
    source, log = film(tmp_path / "film.mkv"), tmp_path / "log"
    words = [f"checkpoint={toy}", f"input={source}", f"output={tmp_path / 'out.mkv'}", "device=cpu", "crf=0"]
    ended = run("animegen.stylize", [words], log, 20_000)
    assert_calm(ended)
    assert ended.code != 0
    assert "cannot be written" in ended.said
    assert not (tmp_path / "out.mkv").exists()
    assert run_verb(stylize.main, *words) == 0


@pytest.mark.parametrize("verb", [train_verb, stylize, interpolate, evaluate, compare, prepare])
def test_an_output_that_cannot_be_written(
    verb: object, toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    source = film(tmp_path / "film.mkv", shots=1, frames=2)
    words = {
        train_verb: tiny(*TOY, "train_steps=1"),
        stylize: [f"checkpoint={toy}", f"input={source}", "device=cpu"],
        interpolate: [f"checkpoint={toy}", f"input={source}", "device=cpu"],
        evaluate: [f"checkpoint={toy}", "device=cpu", "samples=1"],
        compare: [str(toy)],
        prepare: [f"input={source}"],
    }[verb]
    code = run_verb(verb.main, *words, f"output={tmp_path / 'file' / 'out'}")  # type: ignore[attr-defined]
    refused(capfd, code)
    assert (tmp_path / "file").read_text() == "in the way"


def test_two_commands_train_into_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*tiny(*TOY, "train_steps=12"), f"output={folder}"]
    both = [start("animegen.train", [words], tmp_path / f"log{n}") for n in range(2)]
    ends = [finish(process, tmp_path / f"log{n}") for n, process in enumerate(both)]
    assert sorted(end.code or 0 for end in ends) == [0, 2], [end.said for end in ends]
    loser = next(end for end in ends if end.code == 2)
    assert any(words in loser.said for words in ("Another command is at work", "already holds a run"))
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert read_checkpoint(folder)["animegen"]["train_step"] == 12


def test_two_commands_draw_the_same_film(toy: Path, tmp_path: Path) -> None:
    source = film(tmp_path / "film.mkv")
    lossless = ["codec=libx264rgb", "crf=0", "pix_fmt=rgb24", "preset=ultrafast", "device=cpu"]
    words = [f"checkpoint={toy}", f"input={source}", *lossless]
    assert run_verb(stylize.main, *words, f"output={tmp_path / 'alone.mkv'}") == 0
    both = [start("animegen.stylize", [[*words, f"output={tmp_path / 'out.mkv'}"]], tmp_path / f"log{n}") for n in "01"]
    ends = [finish(process, tmp_path / f"log{n}") for n, process in zip("01", both, strict=True)]
    for end in ends:
        assert_calm(end)
    assert 0 in [end.code for end in ends], [end.said for end in ends]
    alone, together = pixels(tmp_path / "alone.mkv"), pixels(tmp_path / "out.mkv")
    assert len(alone) == len(together)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
