"""``stylize`` and ``interpolate`` on files whose names say little: contents decide, and what is left out is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from animegen.cli import stylize as verb
from tests.integration.test_odd_films import FAST, _model
from tests.odd_films import OddFilm, measure

__all__ = ["_model"]  # a fixture
FRAMES = [Image.fromarray(np.full((8, 12, 3), value, np.uint8)) for value in (10, 120, 250)]
DURATIONS = [40, 250, 70]


def run(*words: str) -> int:
    return verb.main([*FAST, *words])


def animated(path: Path, format_: str) -> Path:
    FRAMES[0].save(path, format=format_, save_all=True, append_images=FRAMES[1:], duration=DURATIONS, lossless=True)
    return path


def shown(path: Path) -> list[tuple[int, int]]:
    """Return grey and duration of each frame of an animated image."""
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            image.load()
            found.append((int(np.array(image.convert("L"))[2, 2]), round(image.info["duration"])))
        return found


def test_a_folder_of_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "b.jfif", "c.jpe", "d.tga", "walk.png"):
        FRAMES[1].save(folder / name, format={"tga": "TGA", "png": "PNG"}.get(name[-3:], "JPEG"))
    FRAMES[0].save(folder / "walk.gif")
    animated(folder / "run.png", "PNG")
    OddFilm(".mpg", "mpeg2video", "mp2").write(folder / "e.mpg").rename(folder / "e.vob")
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (folder / "notes.txt").write_text("notes")
    assert run(f"input={folder}", f"output={tmp_path / 'out'}") == 1
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["a.jpg", "b.jfif", "c.jpe", "d.png", "e.mkv", "run.apng", "walk.gif.png", "walk.png"]
    said = capsys.readouterr()
    assert "8 done, 1 skipped" in said.out
    assert "IMG_1.HEIC' is a HEIC image" in said.out
    assert "left out: notes.txt." in said.err
    assert measure(tmp_path / "out/e.mkv").frames == 36


@pytest.mark.parametrize("source", [("in.gif", "GIF"), ("in.webp", "WEBP"), ("in.png", "PNG"), ("in.jpg", "WEBP")])
@pytest.mark.parametrize("target", ["out.gif", "out.webp", "out.apng", "out.mkv", "out.png"])
def test_all_frames_of_animated_images(
    source: tuple[str, str], target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, result = animated(tmp_path / source[0], source[1]), tmp_path / target
    assert run(f"input={path}", f"output={result}", "codec=libx264rgb", "pix_fmt=rgb24", "crf=0") == 0
    said = capsys.readouterr().err
    assert ("is one image: its first frame" in said) == (target == "out.png")
    if target == "out.mkv":
        made = measure(result)
        assert [round(float(time), 3) for time in made.times] == [0, 0.04, 0.29]
        assert abs(float(made.end) - 0.36) < 0.002
    elif target == "out.png":
        with Image.open(result) as image:
            assert image.convert("L").getpixel((2, 2)) == 10
    else:
        made_frames = shown(result)
        assert [grey for grey, _ in made_frames] == [10, 120, 250]
        assert [length for _, length in made_frames][:2] == DURATIONS[:2]


def test_webm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = OddFilm(".mp4", subtitles="mov_text").write(tmp_path / "in.mp4")
    words = (f"input={source}", f"output={tmp_path / 'out.webm'}")
    assert run(*[word for word in words], "preset=null") == 0
    said = capsys.readouterr().err
    assert "converted to libopus" in said
    assert "converted to webvtt" in said
    made = measure(tmp_path / "out.webm")
    assert [kind for kind, _ in made.kinds] == ["video", "audio", "subtitle"]
    assert made.kinds[0][1] in ("vp9", "libvpx-vp9")
    assert made.tone is not None
    assert abs(made.tone - made.flash) < 0.02
    assert made.rates[1] == 24


@pytest.mark.parametrize(
    ("codec", "suffix", "tag"),
    [("libx265", ".mp4", "hvc1"), ("libx265", ".mov", "hvc1"), ("prores_ks", ".mov", "apch"), ("ffv1", ".mkv", "")],
)
def test_codecs(codec: str, suffix: str, tag: str, tmp_path: Path) -> None:
    source = OddFilm(".mp4", sound=None).write(tmp_path / "in.mp4")
    preset = "preset=ultrafast" if codec == "libx265" else "preset=null"
    assert run(f"input={source}", f"output={tmp_path / f'out{suffix}'}", f"codec={codec}", preset) == 0
    made = measure(tmp_path / f"out{suffix}")
    assert made.frames == 36
    assert made.codec_tag == tag
    assert made.flash == pytest.approx(0.5, abs=0.001)


def test_a_name_like_a_pattern(tmp_path: Path) -> None:
    FRAMES[1].save(tmp_path / "100%done.png")
    assert run(f"input={tmp_path / '100%done.png'}", f"output={tmp_path / 'out.png'}") == 0
    assert (tmp_path / "out.png").is_file()
