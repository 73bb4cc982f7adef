"""SIGKILL at random moments: what is left behind is whole, and the same command goes on to the same result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.runs import read_record
from animegen.media.images import write_image
from animegen.media.video.reader import VideoReader
from animegen.outputs import OutputFolder
from animegen.toonworld import Scene
from tests.robustness.support import kill_again_and_again, run
from tests.support import assert_same_state, tiny, train
from tests.video_support import EXACT, write_film

#: In `make test`, and in `make test-all`.
KILLS = [pytest.param(1), pytest.param(50, marks=pytest.mark.slow)]


@pytest.mark.parametrize("kills", KILLS)
def test_training(kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = ("experiment=toy/quickstart", "train_steps=12", "callbacks.checkpoints.every=1", "logger=csv")
    steps = (*steps, "callbacks.log.steps=1")
    expected = read_checkpoint(train(*steps, output=tmp_path / "whole"))
    folder = tmp_path / "run"
    last = folder / "checkpoints" / "last.ckpt"
    anew = [*tiny(*steps), f"output={folder}", "overwrite=true"]

    def words() -> list[str]:
        if last.exists() and status() == "finished":
            finished()
        return [f"resume={folder}"] if last.exists() else anew

    def status() -> str:
        return json.loads((folder / "run.json").read_text())["status"]  # never half a file

    def killed() -> None:
        if (folder / "run.json").exists():
            assert status() in ("running", "trained", "finished")
        if last.exists():
            assert 1 <= read_checkpoint(last)["animegen"]["train_step"] <= 12

    def finished() -> None:
        assert_same_state(expected, read_checkpoint(last))
        rows = (folder / "metrics.csv").read_text().splitlines()[1:]
        assert [int(row.partition(",")[0]) for row in rows] == list(range(1, 13))
        shutil.rmtree(folder)

    told = kill_again_and_again("animegen.cli.train", words, kills, tmp_path / "log", killed, finished)
    with capsys.disabled():
        print(f"\n{told}")


@pytest.mark.parametrize("kills", KILLS)
def test_overwriting(kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = ("experiment=toy/quickstart", "train_steps=6", "callbacks.checkpoints.every=2", "logger=csv")
    steps = (*steps, "callbacks.log.steps=2")
    folder = tmp_path / "run"
    expected = {seed: read_checkpoint(train(*steps, f"seed={seed}", output=tmp_path / f"{seed}")) for seed in (1, 2)}
    train(*steps, "seed=1", output=folder)
    wanted = 2

    def killed() -> None:
        OutputFolder(folder).recover()
        state = read_checkpoint(folder / "checkpoints" / "last.ckpt")
        seed = state["animegen"]["config"]["seed"]
        assert read_record(folder)["config"]["seed"] == seed  # all of the old run, or the new one with a checkpoint
        assert (folder / "metrics.csv").is_file()
        if seed != wanted:
            assert read_record(folder)["status"] == "finished"
            assert_same_state(expected[seed], state)

    def finished() -> None:
        nonlocal wanted
        assert_same_state(expected[wanted], read_checkpoint(folder))
        wanted = 3 - wanted

    told = kill_again_and_again(
        "animegen.cli.train",
        lambda: [*tiny(*steps, f"seed={wanted}"), f"output={folder}", "overwrite=true"],
        kills,
        tmp_path / "log",
        killed,
        finished,
    )
    with capsys.disabled():
        print(f"\n{told}")


def tensor(picture: np.ndarray) -> torch.Tensor:
    """Return a picture (H,W,3) as (3,H,W)."""
    return torch.from_numpy(picture).permute(2, 0, 1).contiguous()


def film(path: Path, shots: int = 3, frames: int = 10) -> Path:
    """Write a film of the generated world with cuts."""
    scenes = [Scene(seed=0, split="test", index=n, size=64) for n in range(shots)]
    return write_film(path, [tensor(scene.photo(2 * t)) for scene in scenes for t in range(frames)], encoding=EXACT)


def pixels(path: Path) -> list[torch.Tensor]:
    return [frame for frame, _ in VideoReader(path)]


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
def test_films(
    verb: str, kills: int, toy: Path, between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = film(tmp_path / "film.mkv"), tmp_path / "out.mkv"
    words = [f"checkpoint={toy if verb == 'stylize' else between}", f"input={source}", f"output={target}", "device=cpu"]
    words += ["codec=libx264rgb", "crf=0", "preset=ultrafast", "pix_fmt=rgb24"]
    expected: list[torch.Tensor] = []

    def killed() -> None:
        if target.exists():  # it was killed after its work was done, perhaps before it had tidied up
            compare()

    def compare() -> None:
        made = pixels(target)
        expected.extend(made if not expected else [])
        assert len(made) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))
        target.unlink()

    def finished() -> None:
        compare()
        assert [path.name for path in tmp_path.iterdir() if path.name not in ("film.mkv", "log")] == []

    told = kill_again_and_again(f"animegen.cli.{verb}", lambda: words, kills, tmp_path / "log", killed, finished)
    with capsys.disabled():
        print(f"\n{told}")


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("overwrite", [False, True])
def test_prepare(overwrite: bool, kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    for number in range(2):
        film(tmp_path / "films" / f"{number}.mkv", shots=2 + number)
    target = tmp_path / "clips"
    base = [f"input={tmp_path / 'films'}", f"output={target}", "uneven=100", "format=png", "short_side=null"]
    settings = [["still=0"], ["still=0", "length=[3,4]"]]  # in turns, each in the place of the other
    expected: dict[int, dict[str, bytes]] = {}
    turn = 0

    def words() -> list[str]:
        return [*base, *settings[turn], *(["overwrite=true"] if overwrite else [])]

    def finished() -> None:
        nonlocal turn
        made = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*.png")}
        assert made
        assert expected.setdefault(turn, made) == made
        if overwrite:
            turn = 1 - turn
        else:
            shutil.rmtree(target)

    nothing: Callable[[], None] = lambda: None  # noqa: E731 - whatever is there, the next attempt has to finish it
    told = kill_again_and_again("animegen.cli.prepare", words, kills, tmp_path / "log", nothing, finished)
    assert not overwrite or expected[0] != expected[1]
    with capsys.disabled():
        print(f"\n{told}")


#: Module, two words whose results replace each other, further words, and the output.
RESULTS = {
    "eval": ("evaluate", ["samples=1", "samples=2"], ["checkpoint={stylize}", "features=none", "device=cpu"], "out"),
    "compare": ("compare", ["{stylize}", "{interpolate}"], [], "out"),
    "clip": (
        "generate",
        ["frames=4", "frames=6"],
        ["checkpoint={interpolate}", "keys={pair}", "device=cpu"],
        "out.gif",
    ),
}


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("case", RESULTS)
def test_results_that_are_replaced(
    case: str, kills: int, toy: Path, between: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, variants, words, name = RESULTS[case]
    scene, target = Scene(seed=0, split="test", index=0, size=64), tmp_path / name
    for number in range(2):
        write_image(tmp_path / f"{number}.png", tensor(scene.photo(number)))
    places = {"stylize": toy, "interpolate": between, "pair": f"[{tmp_path}/0.png,{tmp_path}/1.png]"}
    log, wanted = tmp_path / "log", 0

    def given(turn: int) -> list[str]:
        return [word.format(**places) for word in (variants[turn], *words)] + [f"output={target}", "overwrite=true"]

    def made() -> dict[str, bytes]:
        """Return what was made, but for measured times, and for hidden folders that a killed process leaves."""
        files = (
            [target] if target.is_file() else [file for top in target.glob("[!.]*") for file in (top, *top.rglob("*"))]
        )
        return {path.name: path.read_bytes() for path in files if path.suffix in (".md", ".png", ".gif", ".html")}

    expected = []
    for turn in (0, 1):
        assert run(f"animegen.cli.{module}", [given(turn)], log).code == 0
        expected.append(made())

    def killed() -> None:
        if target.is_dir():
            OutputFolder(target).recover()
        assert made() in expected

    def finished() -> None:
        nonlocal wanted
        assert made() == expected[wanted]
        wanted = 1 - wanted

    told = kill_again_and_again(f"animegen.cli.{module}", lambda: given(wanted), kills, log, killed, finished)
    assert expected[0] != expected[1]
    with capsys.disabled():
        print(f"\n{told}")


def test_the_pictures_of_a_killed_folder_are_whole(toy: Path, tmp_path: Path) -> None:
    for number in range(6):
        write_image(
            tmp_path / "in" / f"{number}.png", tensor(Scene(seed=0, split="test", index=number, size=64).photo(0))
        )
    words = [f"checkpoint={toy}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    whole: dict[str, bytes] = {}

    def killed() -> None:
        for path in (tmp_path / "out").glob("[0-9].png"):
            assert path.read_bytes() == whole[path.name]

    def finished() -> None:
        whole.update({path.name: path.read_bytes() for path in (tmp_path / "out").glob("[0-9].png")})
        assert len(whole) == 6
        shutil.rmtree(tmp_path / "out")

    def again() -> list[str]:
        return [*words, "device=cpu", "overwrite=true"]

    kill_again_and_again("animegen.cli.stylize", again, 1, tmp_path / "log", killed, finished)
