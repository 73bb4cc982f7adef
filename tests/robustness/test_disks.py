"""Disks that are full, folders that cannot be written, and two commands that want the same one."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from animegen.cli import interpolate, prepare, stylize
from animegen.cli import train as train_verb
from animegen.engine.checkpoint import read_checkpoint
from animegen.media.images import write_image
from animegen.outputs import STATE
from tests.robustness.support import assert_calm, finish, run, start
from tests.robustness.test_kills import film, pixels
from tests.support import refused, run_verb, sentence, tiny, train
from tests.unit.data.keyframes.test_keyframe_projects import small_project

TOY = ("experiment=toy/quickstart",)


#: A run that is scored, with pictures.
SCORED = ("logger=none", "evaluate=true", "data.test_scenes=8")


def test_training_on_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    train(*TOY, "train_steps=1", output=folder)
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    room = len(before) - 1000  # for all files but the checkpoint
    assert max(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".ckpt") < room
    ended = run("animegen.cli.train", [[f"resume={folder}", "train_steps=2"]], log, room)
    said = sentence(ended.said, ended.code or 0)
    assert "cannot be written" in said
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not list(folder.rglob("*.unfinished"))
    assert run_verb(train_verb.main, f"resume={folder}", "train_steps=2") == 0  # there is room again
    assert read_checkpoint(folder)["animegen"]["train_step"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("words", "room"), [((), 3_000), ((), 9_000), (("logger=csv",), 6_000), (SCORED, 45_000)])
def test_training_on_a_disk_that_is_full_from_the_beginning(words: tuple[str, ...], room: int, tmp_path: Path) -> None:
    """The configuration, a preview, the record, and a picture of the evaluation are what does not fit."""
    begin = [word for word in tiny(*TOY, "train_steps=2") if not word.startswith(("logger=", "evaluate="))]
    ended = run("animegen.cli.train", [[*begin, *words, f"output={tmp_path / 'run'}"]], tmp_path / "log", room)
    assert "cannot be written (File too large)" in sentence(ended.said, ended.code or 0)
    hidden = [path.name for path in (tmp_path / "run").rglob("*") if "unfinished" in path.name or path.name[0] == "."]
    assert hidden in ([], [STATE])
    assert run_verb(train_verb.main, *begin, *words, f"output={tmp_path / 'run'}", "overwrite=true") == 0


#: What a verb writes, with room for all but its largest file.
FULL = {
    "compare": ("animegen.cli.compare", ["{toy}"], "out", 2_000),
    "eval": ("animegen.cli.evaluate", ["checkpoint={toy}", "device=cpu", "features=none"], "out", 8_000),
    "drawn film": ("animegen.cli.prepare", ["toonworld=photo", "shots=[5,5]", "side=64"], "out.mp4", 8_000),
    "its sound": ("animegen.cli.prepare", ["toonworld=photo", "shots=[5,5]", "side=64"], "out.mp4", 3_000),
    "filter": ("animegen.cli.prepare", ["filter={project}", "radius=1"], "out", 1_000),
    "pictures": ("animegen.cli.stylize", ["checkpoint={toy}", "input={project}/frames", "device=cpu"], "out", 1_000),
    "pt2": ("animegen.cli.export", ["checkpoint={toy}", "format=pt2"], "out.pt2", 5_000),
    "onnx": ("animegen.cli.export", ["checkpoint={toy}", "format=onnx"], "out.onnx", 1_000),
    "smooth film": (
        "animegen.cli.interpolate",
        ["checkpoint={between}", "input={film}", "crf=0", "device=cpu"],
        "out.mkv",
        20_000,
    ),
    "in-betweens": ("animegen.cli.interpolate", ["checkpoint={between}", "input={pair}", "device=cpu"], "out", 1_000),
    "generated": (
        "animegen.cli.generate",
        ["checkpoint={between}", "keys={pair}", "frames=5", "device=cpu"],
        "out.gif",
        1_000,
    ),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("compare", "its sound") else pytest.mark.slow) for name in FULL]
)
def test_a_full_disk_ends_in_a_sentence_and_leaves_nothing_half_written(
    name: str, toy: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    module, words, target, room = FULL[name]
    project = small_project(tmp_path / "project")
    places = {"toy": toy, "project": project, "pair": f"[{project}/frames/000.png,{project}/frames/001.png]"}
    if any("{between}" in word for word in words):
        places["between"] = request.getfixturevalue("between")
    if any("{film}" in word for word in words):
        places["film"] = film(tmp_path / "film.mkv")
    given = [*(word.format(**places) for word in words), f"output={tmp_path / target}"]
    before = {path.name for path in tmp_path.iterdir()}
    ended = run(module, [given], tmp_path / "log", room)
    assert "cannot be written" in sentence(ended.said, ended.code or 0)
    left = {path.name for path in tmp_path.iterdir()} - before - {"log"}
    # Folders that are filled file by file may be there, with whole files; a film's finished shots are kept for later.
    assert left <= {"out", "out.mkv.partial"}
    names = [path.name for path in (tmp_path / "out").rglob("*")] if "out" in left else []
    assert not [each for each in names if each.startswith(".") or "unfinished" in each or each == "scores.json"]
    assert run(module, [given], tmp_path / "log").code == 0  # there is room again
    assert (tmp_path / target).exists()


@pytest.mark.slow
def test_preparing_films_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    words = [f"input={film(tmp_path / 'film.mkv')}", "still=0", "uneven=100", "format=png", "short_side=null"]
    for target, room in (("whole", None), ("full", 3_000), ("full", None)):
        ended = run("animegen.cli.prepare", [[*words, f"output={tmp_path / target}"]], tmp_path / "log", room)
        assert_calm(ended)
        assert (ended.code == 1 and "cannot be written" in ended.said) if room else ended.code == 0
    whole, mended = (
        {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.png")}
        for place in (tmp_path / "whole", tmp_path / "full")
    )
    assert whole
    assert whole == mended


def test_a_film_on_a_full_disk(toy: Path, tmp_path: Path) -> None:
    source, log = film(tmp_path / "film.mkv"), tmp_path / "log"
    words = [f"checkpoint={toy}", f"input={source}", f"output={tmp_path / 'out.mkv'}", "device=cpu", "crf=0"]
    ended = run("animegen.cli.stylize", [words], log, 20_000)
    assert_calm(ended)
    assert ended.code != 0
    assert "cannot be written" in ended.said
    assert not (tmp_path / "out.mkv").exists()
    assert run_verb(stylize.main, *words) == 0


#: Command, words, and an output that exists. Models, videos and projects are broken, so that any work ends otherwise.
OUTPUTS = {
    "stylize": ("stylize", ["checkpoint={broken}.ckpt", "input={image}"], "there.png"),
    "stylize a folder": ("stylize", ["checkpoint={broken}.ckpt", "input={folder}"], "there/image.png"),
    "stylize a video": ("stylize", ["checkpoint={broken}.ckpt", "input={broken}.mp4"], "there.mp4"),
    "stylize to frames": ("stylize", ["checkpoint={broken}.ckpt", "input={broken}.mp4"], "there/000007.png"),
    "interpolate": ("interpolate", ["checkpoint={broken}.ckpt", "input=[{image},{image}]"], "there.mp4"),
    "interpolate to frames": ("interpolate", ["checkpoint={broken}.ckpt", "input={folder}"], "there/000001.png"),
    "generate": ("generate", ["checkpoint={broken}.ckpt", "keys=[{image},{image}]"], "there.gif"),
    "export": ("export", ["checkpoint={broken}.ckpt", "format=pt2"], "there.pt2"),
    "import": ("import_weights", ["source={broken}.pt"], "there.ckpt"),
    "prepare": ("prepare", ["input={broken}.mp4"], "there/any"),
    "prepare toonworld": ("prepare", ["toonworld=photo", "shots=[3]", "side=32"], "there.mp4"),
    "prepare filter": ("prepare", ["filter={broken}.mp4"], "there/any"),
    "prepare import": ("prepare", ["import={broken}.mp4"], "there/any"),
    "bench": ("bench", ["data=video", "input={broken}.mp4"], "there.json"),
    "eval": ("evaluate", ["checkpoint={broken}.ckpt"], "there/scores.json"),
    "compare": ("compare", ["{broken}.mp4"], "there/any"),
    "train": ("train", tiny(*TOY, "data=paired/folders", "data.photos=no", "data.anime=no"), "there/run.json"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_an_output_is_checked_before_any_work(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, words, target = OUTPUTS[case]
    for suffix in (".ckpt", ".mp4", ".pt"):
        (tmp_path / f"broken{suffix}").write_text("broken")
    write_image(tmp_path / "in" / "image.png", torch.zeros(3, 32, 32, dtype=torch.uint8))
    names = {"broken": tmp_path / "broken", "folder": tmp_path / "in", "image": tmp_path / "in" / "image.png"}
    mine = [word.format(**names) for word in words]
    verb = import_module(f"animegen.cli.{command}")

    def said(output: Path, *more: str) -> str:
        return refused(capsys, run_verb(verb.main, *mine, f"output={output}", *more))

    there, name = tmp_path / target, Path(target).parts[0]
    there.parent.mkdir(exist_ok=True)
    there.write_text("theirs")
    assert f"{tmp_path / name}" in (message := said(tmp_path / name))
    assert "exist" in message or "already holds" in message
    assert there.read_text() == "theirs"
    below = tmp_path / "broken.pt" / target
    assert "broken.pt" in (message := said(below.parent if "/" in target else below))
    assert "broken.pt.pt" not in message
    if "/" not in target and case != "stylize":  # an image may go into any folder
        there.unlink()
        there.mkdir()
        assert f"'{there}' is a folder, not a file: choose another output=" in said(there, "overwrite=true")


def test_two_commands_train_into_the_same_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*tiny(*TOY, "train_steps=12"), f"output={folder}"]
    both = [start("animegen.cli.train", [words], tmp_path / f"log{n}") for n in range(2)]
    ends = [finish(process, tmp_path / f"log{n}") for n, process in enumerate(both)]
    assert sorted(end.code or 0 for end in ends) == [0, 2], [end.said for end in ends]
    loser = next(end for end in ends if end.code == 2)
    assert any(words in loser.said for words in ("Another command is at work", "already holds a run"))
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert read_checkpoint(folder)["animegen"]["train_step"] == 12


@pytest.mark.parametrize("verb", [stylize, pytest.param(interpolate, marks=pytest.mark.slow)])
def test_two_commands_draw_the_same_film(verb: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    source = film(tmp_path / "film.mkv")
    lossless = ["codec=libx264rgb", "crf=0", "pix_fmt=rgb24", "preset=ultrafast", "device=cpu"]
    checkpoint = request.getfixturevalue("toy" if verb is stylize else "between")
    words = [f"checkpoint={checkpoint}", f"input={source}", *lossless]
    assert run_verb(verb.main, *words, f"output={tmp_path / 'alone.mkv'}") == 0
    both = [start(verb.__name__, [[*words, f"output={tmp_path / 'out.mkv'}"]], tmp_path / f"log{n}") for n in "01"]
    ends = [finish(process, tmp_path / f"log{n}") for n, process in zip("01", both, strict=True)]
    for end in ends:
        assert_calm(end)
        lost = "Another command is at work" in end.said or "exists: choose another output=" in end.said
        assert end.code == 0 or (end.code == 2 and lost), end.said
    assert 0 in [end.code for end in ends], [end.said for end in ends]
    alone, together = pixels(tmp_path / "alone.mkv"), pixels(tmp_path / "out.mkv")
    assert len(alone) == len(together)
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.slow
def test_two_commands_prepare_the_same_films(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for number in range(2):
        film(tmp_path / "films" / f"{number}.mkv", shots=2 + number)
    words = [f"input={tmp_path / 'films'}", "still=0", "uneven=100", "format=png", "short_side=null"]
    assert run_verb(prepare.main, *words, f"output={tmp_path / 'alone'}") == 0
    both = [start("animegen.cli.prepare", [[*words, f"output={tmp_path / 'out'}"]], tmp_path / f"log{n}") for n in "01"]
    for process, n in zip(both, "01", strict=True):
        assert_calm(finish(process, tmp_path / f"log{n}"))
    assert run_verb(prepare.main, *words, f"output={tmp_path / 'out'}") == 0  # finishes what they left to each other
    alone, together = (
        {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*.png")}
        for place in (tmp_path / "alone", tmp_path / "out")
    )
    assert alone
    assert alone == together
