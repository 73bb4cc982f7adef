"""Videos as images and as GIFs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image

from animegen.errors import AnimegenError
from animegen.media.images import write_image
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import create_video, open_video
from animegen.media.video.sequences import SequenceReader
from tests.video_support import level, noise


def test_a_folder_and_back(tmp_path: Path) -> None:
    film = [noise(n) for n in range(12)]
    with create_video(tmp_path / "frames", VideoInfo(24, 16)) as writer:
        for number, pixels in enumerate(film):
            writer.write(pixels, Fraction(number, 12))
        assert not (tmp_path / "frames").exists()
    assert sorted(path.name for path in (tmp_path / "frames").iterdir())[::11] == ["000001.png", "000012.png"]
    reader = open_video(tmp_path / "frames", Fraction(12))
    read = list(reader)
    assert all(torch.equal(a, b) for a, (b, _) in zip(film, read, strict=True))
    assert [time for _, time in read] == [Fraction(n, 12) for n in range(12)]
    assert (reader.info.frames, reader.info.duration, reader.end) == (12, 1, 1)
    assert torch.equal(reader.at(Fraction(5, 24)), film[2])
    assert [time for _, time in reader.frames(Fraction(1, 3), 0.5)] == [Fraction(4, 12), Fraction(5, 12)]


def test_a_pattern_takes_only_its_files(tmp_path: Path) -> None:
    for name in ("shot_2.png", "shot_10.png", "shot_x.png", "other_1.png"):
        write_image(tmp_path / name, level(len(name)))
    reader = open_video(tmp_path / "shot_%03d.png")
    assert isinstance(reader, SequenceReader)
    assert [path.name for path in reader.files] == ["shot_2.png", "shot_10.png"]
    assert reader.info.fps == 24
    with pytest.raises(AnimegenError, match="There is no image"):
        open_video(tmp_path / "take_%d.png")


def test_writing_a_pattern_leaves_other_files_alone(tmp_path: Path) -> None:
    for name in ("shot_0007.png", "notes.png"):
        write_image(tmp_path / name, level(1))
    with create_video(tmp_path / "shot_%04d.png", VideoInfo(24, 16)) as writer:
        writer.write(noise(1), Fraction(0))
        writer.write(noise(2), Fraction(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.png", "shot_0001.png", "shot_0002.png"]


def test_broken_images_leave_a_gap(tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / f"{number}.png", noise(number))
    (tmp_path / "1.png").write_bytes(b"broken")
    write_image(tmp_path / "3.png", noise(3, 8, 8))
    reader = open_video(tmp_path, Fraction(1))
    assert [time for _, time in reader] == [0, 2, 4]
    assert len(reader.problems) == 2
    assert "1.png" in reader.problems[0]
    assert "'3.png' has 8x8 pixels instead of 24x16" in reader.problems[1]
    assert torch.equal(reader.at(1.5), noise(0))


def test_gif_timing_and_colours(tmp_path: Path) -> None:
    colours = [noise(n) // 86 * 86 for n in range(5)]  # 27 colours at most
    times = [Fraction(n, 24) for n in (0, 1, 2, 4, 7)]
    with create_video(tmp_path / "film.gif", VideoInfo(24, 16)) as writer:
        for pixels, time in zip(colours, times, strict=True):
            writer.write(pixels, time)
        writer.close(Fraction(12, 24))
    with Image.open(tmp_path / "film.gif") as picture:
        shown = []
        for number in range(picture.n_frames):
            picture.seek(number)
            shown.append(picture.info["duration"])
        assert picture.info["loop"] == 0
    # 0, 4.17, 8.33, 16.67, 29.17, 50 hundredths, each rounded.
    assert shown == [40, 40, 90, 120, 210]
    reader = open_video(tmp_path / "film.gif")
    read = list(reader)
    assert [time * 100 for _, time in read] == [0, 4, 8, 17, 29]
    assert reader.end == Fraction(1, 2)
    assert all(torch.equal(a, b) for a, (b, _) in zip(colours, read, strict=True))


def test_a_gif_is_no_faster_than_viewers_show_it(tmp_path: Path) -> None:
    with create_video(tmp_path / "film.gif", VideoInfo(24, 16, Fraction(100), Fraction(1, 100))) as writer:
        for number in range(100):
            writer.write(level(number), Fraction(number, 100))
        writer.close(Fraction(1))
    assert writer.notes == ["A GIF shows at most 50 frames per second: 50 were left out."]
    reader = open_video(tmp_path / "film.gif")
    assert [time * 100 for _, time in reader] == list(range(0, 100, 2))
    assert reader.end == 1


def test_names_decide(tmp_path: Path) -> None:
    info = VideoInfo(24, 16)
    for name, kind in (
        ("a.mp4", "VideoWriter"),
        ("a.gif", "AnimationWriter"),
        ("a", "SequenceWriter"),
        ("%d.png", "SequenceWriter"),
    ):
        writer = create_video(tmp_path / name, info)
        assert type(writer).__name__ == kind
        writer.abort()
    assert list(tmp_path.iterdir()) == []
