"""``animegen stylize`` on films: frames, times and sound; cuts; stopping and going on; damage."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from animegen.cli import stylize as verb
from animegen.inference import application
from animegen.inference import stylize as body
from animegen.inference.partial import MANIFEST
from animegen.locks import locked
from animegen.media.images import write_image
from animegen.media.video import remux
from animegen.media.video.animations import AnimationWriter
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import open_video
from animegen.media.video.reader import VideoReader
from tests.support import refused
from tests.video_support import EXACT, level, noise, other_packets, with_sound, write_film

#: Keys that make the result comparable to the bit.
LOSSLESS = ("codec=libx264rgb", "crf=0", "preset=ultrafast", "pix_fmt=rgb24")


class Inverts(nn.Module):
    """A model that remembers nothing."""

    size_divisor = 2
    fails_at = 10**9

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        self.calls += 1
        if self.calls > self.fails_at:
            raise KeyboardInterrupt
        return -frames, state

    def encode_pair(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        return first, last

    def synthesize(self, encoded: tuple[Tensor, Tensor], t: Tensor) -> Tensor:
        return torch.lerp(*encoded, float(t))


class Counts(Inverts):
    """A model that remembers how many frames it has seen since the last cut, and draws that as a grey."""

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        super().stylize(frames, state)
        count = 0 if state is None else state
        return torch.full_like(frames, count / 127.5 - 1), count + 1


@pytest.fixture(params=[Inverts])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Inverts:
    model = request.param().eval()
    monkeypatch.setattr(application, "load_model", lambda *_, **__: model)
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))
    monkeypatch.setattr(body, "_shots", lambda frames: [(0, len(list(frames)))])
    return model


def run(*words: str) -> int:
    return verb.main(["checkpoint=some.ckpt", "device=cpu", *words])


def film_with_sound(path: Path, count: int = 24) -> Path:
    """Return a video of noise that begins late, has an uneven rate, and a sound track."""
    times = [Fraction(1001 * (1 + n + n // 5), 24000) for n in range(count)]
    sound = with_sound(path.with_name("sound.mp4"), 1.2)
    frames = [noise(n) for n in range(count)]
    write_film(path, frames, times, encoding=EXACT, time_base=Fraction(1, 24000), copy_from=sound)
    path.with_name("sound.mp4").unlink()
    return path


def pixels_of(path: Path) -> list[Tensor]:
    return [pixels for pixels, _ in open_video(path)]


def times_of(path: Path) -> list[Fraction]:
    return [time for _, time in open_video(path)]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_times_and_sound(
    suffix: str, model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = film_with_sound(tmp_path / "in.mp4")
    target = tmp_path / f"out{suffix}"
    assert run(f"input={source}", f"output={target}", *LOSSLESS) == 0
    before, after = VideoReader(source), VideoReader(target)
    read, drawn = list(before), list(after)
    assert len(drawn) == 24
    assert all(torch.equal(a, 255 - b) for (a, _), (b, _) in zip(drawn, read, strict=True))
    tolerance = Fraction(1, 2000) if suffix == ".mkv" else 0
    assert all(abs(a - b) <= tolerance for (_, a), (_, b) in zip(drawn, read, strict=True))
    assert abs(after.end - before.end) <= tolerance * 2
    sound = other_packets(source)
    assert len(sound) > 10
    assert [data for data, _ in other_packets(target)] == [data for data, _ in sound]
    output = capsys.readouterr()
    assert "1 done, 0 skipped" in output.out
    assert "frames/s" in output.out
    assert "in.mp4: 24/24 frames" in output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", target.name]


@pytest.mark.parametrize("model", [Counts], indirect=True)
def test_memory_ends_at_cuts(model: Inverts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(12)])
    monkeypatch.setattr(body, "_shots", lambda frames: [(0, 3), (3, 8), (8, len(list(frames)))])
    assert run(f"input={source}", f"output={tmp_path / 'out.mp4'}", *LOSSLESS) == 0
    assert [int(x[0, 0, 0]) for x in pixels_of(tmp_path / "out.mp4")] == [0, 1, 2, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert run(f"input={source}", f"output={tmp_path / 'uncut.mp4'}", "cuts=false", *LOSSLESS) == 0
    assert [int(x[0, 0, 0]) for x in pixels_of(tmp_path / "uncut.mp4")] == list(range(12))


def test_the_detector_finds_the_cuts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dark, bright = [level(20, 64, 64)] * 12, [level(230, 64, 64)] * 12
    source = write_film(tmp_path / "in.mp4", [*dark, *bright])
    shots = body._shots(pixels for pixels, _ in VideoReader(source))
    assert shots == [(0, 12), (12, 24)]


@pytest.mark.parametrize("model", [Counts], indirect=True)
@pytest.mark.parametrize("stop", [1, 5, 9, 11])
def test_stopping_and_going_on(stop: int, model: Inverts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is that of an uninterrupted run, and no finished shot is computed again."""
    source = film_with_sound(tmp_path / "in.mp4", 12)
    monkeypatch.setattr(body, "_shots", lambda frames: [(0, 4), (4, 6), (6, len(list(frames)))])
    assert run(f"input={source}", f"output={tmp_path / 'whole.mp4'}") == 0
    model.calls, model.fails_at = 0, stop + 1  # a call more asks whether it remembers
    words = (f"input={source}", f"output={tmp_path / 'out.mp4'}")
    assert run(*words) == 130
    assert not (tmp_path / "out.mp4").exists()
    partial = tmp_path / "out.mp4.partial"
    finished = {1: 0, 5: 4, 9: 6, 11: 6}[stop]
    assert len(list(partial.glob("*.mp4"))) == {0: 0, 4: 1, 6: 2}[finished]
    monkeypatch.setattr(body, "_shots", lambda frames: pytest.fail("the shots are known"))
    model.calls, model.fails_at = 0, 10**9
    assert run(*words) == 0
    assert model.calls == 12 - finished + 1
    assert not partial.exists()
    for whole, out in zip(pixels_of(tmp_path / "whole.mp4"), pixels_of(tmp_path / "out.mp4"), strict=True):
        assert torch.equal(whole, out)
    assert times_of(tmp_path / "out.mp4") == times_of(tmp_path / "whole.mp4") == times_of(source)
    assert other_packets(tmp_path / "out.mp4") == other_packets(tmp_path / "whole.mp4")


@pytest.mark.parametrize("model", [Counts], indirect=True)
def test_killed_in_the_middle(model: Inverts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed leaves nothing under the name of the video, and its finished shots for another."""
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(12)])
    program = (
        "import sys, time; from pathlib import Path; from animegen.cli import stylize as verb\n"
        "from animegen.inference import application, stylize as body\n"
        "from tests.integration.test_stylize_films import Counts\n"
        "class Slow(Counts):\n"
        "    def stylize(self, frames, state, style=None):\n"
        "        time.sleep(60 if self.calls == 6 else 0); return super().stylize(frames, state)\n"
        "application.load_model = lambda *_, **__: Slow()\n"
        "application.resolve_checkpoint = lambda path, runs: Path(path)\n"
        "body._shots = lambda frames: [(0, 4), (4, 12)]\n"
        "verb.main(sys.argv[1:])"
    )
    words = ["checkpoint=some.ckpt", "device=cpu", f"input={source}", f"output={tmp_path / 'out.mp4'}"]
    process = subprocess.Popen([sys.executable, "-c", program, *words], cwd=Path(__file__).parents[2])
    first = tmp_path / "out.mp4.partial" / "00001.mp4"
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out.mp4").exists()
    assert len(list(VideoReader(first))) == 4
    monkeypatch.setattr(body, "_shots", lambda frames: pytest.fail("the shots are known"))
    assert verb.main(words) == 0
    assert model.calls == 8 + 1
    drawn = pixels_of(tmp_path / "out.mp4")
    assert [int(x.float().mean().round()) for x in drawn] == pytest.approx([*range(4), *range(8)], abs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("model", [Counts], indirect=True)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_shot_is_drawn_again(
    damage: str, model: Inverts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(12)])
    monkeypatch.setattr(body, "_shots", lambda frames: [(0, 4), (4, 6), (6, len(list(frames)))])
    words = (f"input={source}", *LOSSLESS)
    assert run(*words, f"output={tmp_path / 'whole.mp4'}") == 0
    model.calls, model.fails_at = 0, 9
    assert run(*words, f"output={tmp_path / 'out.mp4'}") == 130
    second = tmp_path / "out.mp4.partial" / "00002.mp4"
    data = second.read_bytes()
    half = len(data) // 2
    if damage == "gone":
        second.unlink()
    else:
        flipped = data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :]
        second.write_bytes({"flipped": flipped, "cut": data[:half], "empty": b""}[damage])
    (second.parent / "mine.txt").write_text("not the command's")
    model.calls, model.fails_at = 0, 10**9
    capsys.readouterr()
    assert run(*words, f"output={tmp_path / 'out.mp4'}") == 0
    assert f"'{second}' is damaged: it and what follows is drawn again" in capsys.readouterr().err
    assert model.calls == 8 + 1
    for whole, out in zip(pixels_of(tmp_path / "whole.mp4"), pixels_of(tmp_path / "out.mp4"), strict=True):
        assert torch.equal(whole, out)
    assert [path.name for path in second.parent.iterdir()] == ["mine.txt"]


def test_a_video_that_another_command_draws(model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is left to that command; what that has begun stays as it is."""
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(3)])
    words = (f"input={source}", f"output={tmp_path / 'out.mp4'}")
    partial = tmp_path / "out.mp4.partial"
    with locked(partial):
        (partial / "00001.mp4").write_text("half of a shot")
        assert run(*words) == 2
        assert f"Another command is at work in '{partial}'" in capsys.readouterr().err
        assert (partial / "00001.mp4").read_text() == "half of a shot"
    (partial / "00001.mp4").unlink()
    assert run(*words) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_other_settings_begin_again(model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(n) for n in range(6)])
    words = (f"input={source}", f"output={tmp_path / 'out.mp4'}")
    model.fails_at = 4
    assert run(*words, "strength=0.5") == 130
    assert "the same command resumes" in capsys.readouterr().err
    model.calls, model.fails_at = 0, 10**9
    assert run(*words) == 0
    assert "the video is started again" in capsys.readouterr().err
    assert model.calls == 6 + 1
    (tmp_path / "more.mp4.partial").mkdir()
    (tmp_path / "more.mp4.partial" / "mine.txt").write_text("mine")
    message = refused(capsys, run(f"input={source}", f"output={tmp_path / 'more.mp4'}"))
    assert "is not an unfinished video of animegen" in message
    assert (tmp_path / "more.mp4.partial" / "mine.txt").exists()


def test_a_video_that_is_cut_off(model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_film(tmp_path / "in.mkv", [noise(n, 64, 64) for n in range(72)], encoding=EXACT)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    readable = pixels_of(source)
    assert run(f"input={source}", f"output={tmp_path / 'out.mp4'}", *LOSSLESS) == 1
    text = capsys.readouterr().out
    assert "1 done, 0 skipped" in text
    assert f"incomplete: '{source}': it is cut off" in text
    drawn = VideoReader(tmp_path / "out.mp4")
    assert all(torch.equal(255 - a, b) for a, (b, _) in zip(readable, drawn, strict=True))
    assert drawn.problems == []


def test_strength_tile_max_side(model: Inverts, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(n, 96, 144) for n in range(3)], encoding=EXACT)
    whole = tmp_path / "whole.mp4"
    assert run(f"input={source}", f"output={whole}", "tile=0", *LOSSLESS) == 0
    assert run(f"input={source}", f"output={tmp_path / 'tiled.mp4'}", "tile=64", *LOSSLESS) == 0
    assert all(torch.equal(a, b) for a, b in zip(pixels_of(whole), pixels_of(tmp_path / "tiled.mp4"), strict=True))
    assert run(f"input={source}", f"output={tmp_path / 'photo.mp4'}", "strength=0", *LOSSLESS) == 0
    assert all(torch.equal(a, b) for a, b in zip(pixels_of(source), pixels_of(tmp_path / "photo.mp4"), strict=True))
    assert run(f"input={source}", f"output={tmp_path / 'small.mp4'}", "max_side=72", "precision=bf16") == 0
    info = VideoReader(tmp_path / "small.mp4").info
    assert (info.width, info.height, info.expected_frames) == (72, 48, 3)


def test_gif_and_images(model: Inverts, tmp_path: Path) -> None:
    with AnimationWriter(tmp_path / "in.gif", VideoInfo(24, 16)) as writer:
        for number in range(4):
            writer.write(level(50 * number), Fraction(number * 7, 100))
        writer.close(Fraction(30, 100))
    assert run(f"input={tmp_path / 'in.gif'}", f"output={tmp_path / 'out.gif'}") == 0
    reader = open_video(tmp_path / "out.gif")
    assert [(int(x[0, 0, 0]), time * 100) for x, time in reader] == [(255, 0), (205, 7), (155, 14), (105, 21)]
    assert reader.end == Fraction(3, 10)
    assert run(f"input={tmp_path / 'in.gif'}", f"output={tmp_path / 'frames'}") == 0
    assert [int(x[0, 0, 0]) for x in pixels_of(tmp_path / "frames")] == [255, 205, 155, 105]
    pattern = f"input={tmp_path / 'frames'}/%06d.png"
    assert run(pattern, f"output={tmp_path / 'back.mp4'}", "fps=30000/1001", *LOSSLESS) == 0
    assert VideoReader(tmp_path / "back.mp4").info.fps == Fraction(30000, 1001)
    assert [int(x[0, 0, 0]) for x in pixels_of(tmp_path / "back.mp4")] == [0, 50, 100, 150]
    assert run(f"input={tmp_path / 'frames'}", f"output={tmp_path / 'shot'}/%03d.jpg") == 0
    assert sorted(path.name for path in (tmp_path / "shot").iterdir())[::3] == ["001.jpg", "004.jpg"]


def test_a_folder_of_both(model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    write_image(folder / "photo.png", noise(0))
    (folder / "deep").mkdir()
    write_film(folder / "deep" / "film.mp4", [noise(n) for n in range(3)])
    (folder / "broken.mp4").write_bytes(b"no film at all")
    Image.new("RGB", (8, 8)).save(folder / "still.gif")
    assert run(f"input={folder}", f"output={tmp_path / 'out'}") == 1
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert made == ["deep/film.mp4", "photo.png", "still.png"]
    text = capsys.readouterr().out
    assert "3 done, 1 skipped" in text
    assert text.count("broken.mp4") == 1
    message = refused(capsys, run(f"input={folder}", f"output={tmp_path / 'again'}", "on_error=fail"))
    assert "broken.mp4" in message


def test_a_video_that_cannot_be_joined_does_not_end_the_others(
    model: Inverts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_film(folder / name, [noise(n) for n in range(3)])
    write = remux._write

    def fails(segments: Any, target: Path, *rest: Any) -> list[str]:
        notes = write(segments, target, *rest)
        if segments[0].path.parent.name == "b.mp4.partial":
            raise av.error.InvalidDataError(0, "Invalid data")
        return notes

    monkeypatch.setattr(remux, "_write", fails)
    assert run(f"input={folder}", f"output={tmp_path / 'out'}", *LOSSLESS) == 1
    text = capsys.readouterr().out
    assert "2 done, 1 skipped" in text
    assert re.search(r"skipped: '.*b.mp4'.* cannot be joined \(Invalid data\)", text)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mp4.partial", "c.mp4"]
    assert sorted(path.name for path in (tmp_path / "out" / "b.mp4.partial").iterdir()) == ["00001.mp4", MANIFEST]
    words = [f"input={folder}", f"output={tmp_path / 'again'}", "on_error=fail"]
    assert "on_error=skip" in refused(capsys, run(*words, *LOSSLESS))
    assert not (tmp_path / "again" / "c.mp4").exists()
    # A full disk would fail the next video, too.
    monkeypatch.setattr(remux, "_write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left")))
    assert "space left" in refused(capsys, run(f"input={folder}", f"output={tmp_path / 'full'}", *LOSSLESS))
    # The drawn frames are kept until the video can be joined.
    monkeypatch.setattr(remux, "_write", write)
    calls = model.calls
    words = [f"input={folder / 'b.mp4'}", f"output={tmp_path / 'out' / 'b.mp4'}"]
    assert run(*words, *LOSSLESS) == 0
    assert model.calls - calls <= 1  # a call more asks whether it remembers
    assert len(pixels_of(tmp_path / "out" / "b.mp4")) == 3


def test_an_output_that_its_format_refuses_does_not_end_the_others(
    model: Inverts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """WebP takes at most 16383 pixels on a side: as an image, as an animation, and as a frame."""
    folder, wide = tmp_path / "in", (16400, 2)
    for name, size in {"a": (24, 16), "b": wide, "c": (24, 16)}.items():
        write_image(folder / f"{name}.png", torch.zeros(3, *size[::-1], dtype=torch.uint8))
    frames = [Image.new("L", wide, 80 * n) for n in range(3)]
    frames[0].save(tmp_path / "wide.apng", "PNG", save_all=True, append_images=frames[1:], duration=40)
    out = tmp_path / "out"
    assert run(f"input={folder}", f"output={out}", "format=webp") == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "2 done, 1 skipped" in text
    assert re.search(r"b.webp' cannot be encoded \(.*16383.*\): choose another format", text)
    assert sorted(path.name for path in out.glob("*.webp")) == ["a.webp", "c.webp"]
    for target in ("wide.webp", "frames/%d.webp"):
        assert run(f"input={tmp_path / 'wide.apng'}", f"output={tmp_path / target}") == 1
        assert "cannot be encoded" in capsys.readouterr().out
        assert not (tmp_path / target).parent.joinpath("wide.webp").exists()
    words = [f"input={folder}", f"output={tmp_path / 'no'}", "format=webp", "on_error=fail"]
    assert "on_error=skip" in refused(capsys, run(*words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["codec=libx246"], "not an encoder"),
        (["pix_fmt=yuv411p"], "has no pix_fmt=yuv411p"),
        (["codec=mpeg4", "crf=20"], "has no effect with codec=mpeg4"),
        (["output=out.avi"], "no suffix of a video that can be written"),
        (["fps=25"], "videos have a rate of their own: leave fps= out"),
        (["fps=fast"], "fps=fast is not valid"),
        (["output=in.mp4"], "would replace the input"),
        (["input=nothing.mp4"], "does not exist"),
        (["input=in.txt"], "neither an image nor a video"),
    ],
)
def test_mistakes(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_film(tmp_path / "in.mp4", [noise(0)])
    (tmp_path / "in.txt").write_text("text")
    assert message in refused(capsys, run("input=in.mp4", "output=out.mp4", *words))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "in.txt"]


def test_existing_results_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_film(tmp_path / "in.mp4", [noise(0)])
    (tmp_path / "out.mp4").write_bytes(b"mine")
    assert "exists" in refused(capsys, run(f"input={source}", f"output={tmp_path / 'out.mp4'}"))
    write_image(tmp_path / "frames" / "mine.png", noise(1))
    assert "exists" in refused(capsys, run(f"input={source}", f"output={tmp_path / 'frames'}"))
    assert (tmp_path / "out.mp4").read_bytes() == b"mine"


def test_overwrite_replaces_the_frames_and_nothing_else(model: Inverts, tmp_path: Path) -> None:
    source = write_film(tmp_path / "in.mp4", [level(55)], encoding=EXACT)
    for name in ("mine.png", "000001.png", "000002.png"):
        write_image(tmp_path / "frames" / name, noise(1))
    assert run(f"input={source}", f"output={tmp_path / 'frames'}", "overwrite=true") == 0
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["000001.png", "mine.png"]
    assert int(open_video(tmp_path / "frames" / "%06d.png").at(0)[0, 0, 0]) == 200


def test_memory_does_not_grow(model: Inverts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_film(tmp_path / "in.mp4", (level(n % 256, 32, 32) for n in range(300)))
    sizes: list[int] = []
    plain = Inverts.stylize

    def measured(self: Inverts, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        if self.calls in (50, 290):
            sizes.append(tracemalloc.get_traced_memory()[0])
        return plain(self, frames, state)

    monkeypatch.setattr(Inverts, "stylize", measured)
    tracemalloc.start()
    assert run(f"input={source}", f"output={tmp_path / 'out.mp4'}", "preset=ultrafast") == 0
    tracemalloc.stop()
    assert sizes[1] - sizes[0] < 200_000  # 240 frames are 740 thousand bytes
