"""Paths of data: read literally, recorded absolutely, and named by their key where they are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from animegen.cli import evaluate
from animegen.cli import train as train_verb
from animegen.config.compose import CACHE_PATHS, DATA_PATHS, compose_config, literal_paths, swept_homes
from animegen.media.images import write_image
from tests.support import refused, run_verb, train
from tests.video_support import noise

CONF = Path(__file__).parents[3] / "conf"
NAMES = ["写真", "my photos", "a[1]", "x,y", "a=b", "(1)", "null2", "123", "it's", "{a}"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    words = literal_paths("train", ["data=unpaired/folders", f"data.photos=./{name}", f"data.anime=./{name}"])
    data = compose_config("train", words).data
    assert (data.photos, data.anime) == (str(tmp_path / name), str(tmp_path / name))


@pytest.mark.parametrize("word", ["output=~/new", "data.photos=~/new", "benchmark.video=~/new"])
def test_the_home_folder(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    key = word.partition("=")[0]
    name = "eval" if key == "benchmark.video" else "train"
    assert literal_paths(name, [word]) == [f"{key}='{tmp_path}/new'"]


def test_what_is_no_path_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["data.photos=${data.anime}", "data.video=null", "data.folder=[a,b]", "data.path='a b'", "model.x=a"]
    assert literal_paths("train", words) == words
    assert literal_paths("train", ["features.weights=random"]) == ["features.weights='random'"]


def test_every_folder_of_the_data_groups_is_known() -> None:
    """A value that the user has to give, or that a comment calls a folder or a video, is a path."""
    found = set()
    for file in (CONF / "data").rglob("*.yaml"):
        for line in file.read_text().splitlines():
            if match := re.match(r"(\w+): (\?\?\?|null|memory)\s+# .*(folder|video|project|as published|photos)", line):
                found.add(f"data.{match[1]}")
    assert found - {"data.clip", "data.style"} <= {*DATA_PATHS, *CACHE_PATHS}
    assert len(found) > 8


def test_a_run_whose_data_have_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    monkeypatch.chdir(tmp_path)
    for number in range(6):
        for folder in ("photos", "anime"):
            write_image(tmp_path / folder / f"{number}.png", noise(number, 32, 32))
    data = ("data=paired/folders", "data.photos=photos", "data.anime=anime", "data.holdout=0.4")
    run = train("experiment=toy/quickstart", "train_steps=1", *data, output=tmp_path / "run")
    (tmp_path / "photos").rename(tmp_path / "moved")
    capsys.readouterr()
    words = [f"checkpoint={run}", "samples=1", "features=none", "device=cpu"]
    message = f"data.photos='{tmp_path / 'photos'}', which do not exist here: give data.photos="
    assert message in refused(capsys, run_verb(evaluate.main, *words))
    assert run_verb(evaluate.main, *words, "data.photos=moved") == 0
    capsys.readouterr()
    assert message in refused(capsys, run_verb(train_verb.main, f"resume={run}", "train_steps=2"))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.photos=~/a,~/b c", "data.photos='/home/me/a','/home/me/b c'"),
        ("data.photos=~/a,b", "data.photos='/home/me/a',b"),
        ("data.photos=a,b~c", "data.photos=a,b~c"),
        ("data.photos='~/a','~/b'", "data.photos='~/a','~/b'"),
        ("model.name=~/a", "model.name=~/a"),
    ],
)
def test_the_home_folder_in_swept_data(word: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert swept_homes(word) == expected
