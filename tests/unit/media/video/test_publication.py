"""Videos get their names exclusively, in every format that is written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from animegen.errors import AnimegenError
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import create_video, open_video
from tests.video_support import FAST, noise

INFO = VideoInfo(24, 16, Fraction(10), time_base=Fraction(1, 10))
TARGETS = ("out.mkv", "out.mp4", "out.gif", "out", "out/%03d.png")


def write(target: Path, frames: int, overwrite: bool, before_closing: object = None) -> None:
    with create_video(target, INFO, FAST, overwrite=overwrite) as writer:
        for number in range(frames):
            writer.write(noise(number), Fraction(number, 10))
        if callable(before_closing):
            before_closing()


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_made_meanwhile_stays(target: str, tmp_path: Path) -> None:
    path = tmp_path / target

    def meanwhile() -> None:
        first = path if path.suffix and "%" not in path.name else tmp_path / "out" / "001.png"
        first.parent.mkdir(exist_ok=True)
        first.write_text("theirs")

    with pytest.raises(AnimegenError, match="exists: choose another output="):
        write(path, 3, False, meanwhile)
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file.read_text() for file in left] == ["theirs"]
    assert not [file for file in tmp_path.rglob(".*")]


@pytest.mark.parametrize("target", TARGETS)
def test_overwriting_replaces_the_whole_video_and_nothing_else(target: str, tmp_path: Path) -> None:
    path = tmp_path / target
    write(path, 5, False)
    place = path if path.suffix and "%" not in path.name else tmp_path / "out"
    if place.is_dir():
        (place / "note.txt").write_text("mine")
    write(path, 3, True)
    assert len(list(open_video(path if "%" in target else place))) == 3
    assert not place.is_dir() or (place / "note.txt").read_text() == "mine"
    assert not [file for file in tmp_path.rglob(".*")]


@pytest.mark.parametrize("target", ["out", "out/%03d.png"])
def test_two_commands_never_mix_their_images(target: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with create_video(tmp_path / target, INFO, overwrite=True) as writer:
        writer.write(noise(0), Fraction(0))
        with pytest.raises(AnimegenError, match="Another command is at work"):
            create_video(tmp_path / target, INFO, overwrite=True)
    assert len(list((tmp_path / "out").iterdir())) == 1
