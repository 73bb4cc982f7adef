"""Reading: exact times, upright frames, any place at any time, and damage that is reported."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from animegen.errors import AnimegenError
from animegen.media.video.encoding import Encoding
from animegen.media.video.reader import VideoReader
from tests.video_support import EXACT, FAST, level, noise, raw_film, with_sound, write_film

UNEVEN = [Fraction(n, 24000) for n in (1001, 2002, 2502, 5000, 5001, 9009, 30030)]


def test_facts(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [noise(n) for n in range(12)], fps=Fraction(24000, 1001))
    info = VideoReader(path).info
    assert (info.width, info.height, info.fps, info.frames) == (24, 16, Fraction(24000, 1001), 12)
    assert info.duration == 12 * Fraction(1001, 24000)
    assert (info.has_audio, info.codec, info.pix_fmt, info.rotation) == (False, "h264", "yuv420p", 0)


def test_a_video_that_changes_its_size_keeps_the_first(tmp_path: Path) -> None:
    pieces = []
    for number, (height, width) in enumerate(((48, 64), (96, 128))):
        with av.open(str(tmp_path / f"{number}.ts"), "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=24, width=width, height=height, pix_fmt="yuv420p")
            for n in range(3):
                frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 200 - 100 * number, np.uint8), "rgb24")
                frame.pts = 3 * number + n
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        pieces.append((tmp_path / f"{number}.ts").read_bytes())
    (tmp_path / "film.ts").write_bytes(b"".join(pieces))
    reader = VideoReader(tmp_path / "film.ts")
    frames = [pixels for pixels, _ in reader]
    assert [tuple(pixels.shape) for pixels in frames] == [(3, 48, 64)] * 6
    assert [round(pixels.float().mean().item() / 10) for pixels in frames] == [20, 20, 20, 10, 10, 10]
    assert any("scaled to that of the first" in problem for problem in reader.problems)
    assert all(tuple(original.pixels.shape) == (3, 48, 64) for original, _ in reader.originals())


def test_what_a_copy_would_not_have_is_reported(tmp_path: Path) -> None:
    plain = write_film(tmp_path / "plain.mp4", [level(100)] * 2)
    assert VideoReader(plain).info.remarks == ()
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        options = {"x264-params": "tff=1"}
        stream = container.add_stream("libx264", rate=24, width=64, height=64, pix_fmt="yuv420p", options=options)
        for n in range(2):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 100, np.uint8), "rgb24")
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (remark,) = VideoReader(tmp_path / "film.mp4").info.remarks
    assert "interlaced" in remark


def test_variable_rate_to_the_tick(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "film.mp4",
        [noise(n) for n in range(7)],
        UNEVEN,
        time_base=Fraction(1, 24000),
        encoding=EXACT,
        end=Fraction(31031, 24000),
    )
    reader = VideoReader(path)
    read = list(reader)
    assert [time for _, time in read] == [time - UNEVEN[0] for time in UNEVEN]  # times count from the first frame
    assert reader.end == Fraction(31031, 24000) - UNEVEN[0]
    assert all(torch.equal(pixels, noise(n)) for n, (pixels, _) in enumerate(read))
    assert not reader.problems


def test_matroska_rounds_to_its_milliseconds(tmp_path: Path) -> None:
    wanted = [time for time in UNEVEN if time != UNEVEN[4]]  # 1/24000 s after another
    path = write_film(tmp_path / "film.mkv", [noise(n) for n in range(6)], wanted, time_base=Fraction(1, 24000))
    times = [time for _, time in VideoReader(path)]
    assert all(abs(read - time + wanted[0]) <= Fraction(1, 1000) for read, time in zip(times, wanted, strict=True))


@pytest.mark.parametrize("encoding", [EXACT, Encoding("libx265", preset="ultrafast"), FAST])
def test_any_frame_by_its_time(encoding: Encoding, tmp_path: Path) -> None:
    film = [noise(n, 64, 64) for n in range(40)]
    path = write_film(tmp_path / "film.mp4", film, encoding=encoding)
    reader = VideoReader(path)
    read = list(reader)
    generator = np.random.default_rng(0)
    for number in generator.permutation(40)[:12]:
        pixels, time = read[number]
        assert torch.equal(reader.at(time), pixels)
        assert torch.equal(reader.at(time + Fraction(1, 50)), pixels)  # it is still shown
        again, its_time = next(reader.frames(start=time))
        assert its_time == time
        assert torch.equal(again, pixels)
    assert torch.equal(reader.at(-1), read[0][0])
    assert torch.equal(reader.at(99), read[-1][0])
    between = [time for _, time in reader.frames(Fraction(10, 24), Fraction(13, 24))]
    assert between == [Fraction(10, 24), Fraction(11, 24), Fraction(12, 24)]


def test_seeking_between_key_frames_that_are_shown_late(tmp_path: Path) -> None:
    """Containers seek by decoding time: at a key frame, the frame before it must not be lost."""
    film = [noise(n, 32, 32) for n in range(60)]
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        options = {"g": "10", "bf": "3", "x264-params": "b-adapt=0:scenecut=0:open-gop=1", "crf": "10"}
        stream = container.add_stream("libx264", rate=24, width=32, height=32, pix_fmt="yuv420p", options=options)
        for pixels in film:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels.permute(1, 2, 0).numpy(), "rgb24")))
        container.mux(stream.encode(None))
    reader = VideoReader(tmp_path / "film.mp4")
    read = list(reader)
    assert len(read) == 60
    for pixels, time in read[::3]:
        assert torch.equal(reader.at(time), pixels), float(time)


@pytest.mark.parametrize(
    ("rotation", "mirrored", "expected"),
    [
        (90, False, lambda stored: np.rot90(stored)),
        (-90, False, lambda stored: np.rot90(stored, -1)),
        (180, False, lambda stored: np.rot90(stored, 2)),
        (0, True, lambda stored: stored[:, ::-1]),
    ],
)
def test_rotation(rotation: int, mirrored: bool, expected: object, tmp_path: Path) -> None:
    stored = raw_film(tmp_path / "film.mp4", rotation, mirrored)
    reader = VideoReader(tmp_path / "film.mp4")
    upright = expected(stored)  # type: ignore[operator]
    pixels = reader.at(0).permute(1, 2, 0).numpy()
    assert np.array_equal(pixels, upright)
    assert (reader.info.height, reader.info.width) == upright.shape[:2]
    if not mirrored:
        assert reader.info.rotation == rotation % 360


def test_a_video_that_is_cut_off(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mkv", [noise(n, 64, 64) for n in range(72)])
    whole = list(VideoReader(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = VideoReader(path)
    read = list(reader)
    assert 20 < len(read) < 50
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(read[:-1], whole, strict=False))
    assert len(reader.problems) == 1
    assert "cut off" in reader.problems[0]
    assert "of 3.00 s" in reader.problems[0]


def test_packets_that_are_broken(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", [noise(n, 64, 64) for n in range(48)])
    _destroy(path, slice(20, 23))
    reader = VideoReader(path)
    times = [time for _, time in reader]
    assert 44 <= len(times) <= 48
    assert times == sorted(set(times))
    assert reader.problems
    assert all("packets" in problem or "damaged" in problem for problem in reader.problems)
    assert len(list(reader)) == len(times)
    assert len(reader.problems) == len(set(reader.problems))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("film.mp4", b"", "it is empty"),
        ("film.mp4", b"no film at all" * 100, "it is not a video, is damaged"),
        ("film.mp4", None, "does not exist"),
    ],
)
def test_no_video(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AnimegenError, match=message):
        VideoReader(tmp_path / name)


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match="no frames, only audio"):
        VideoReader(with_sound(tmp_path / "sound.mp4"))


def test_no_frames(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "empty.mkv"), "w") as container:
        container.add_stream("libx264", rate=24, width=16, height=16, pix_fmt="yuv420p")
        container.start_encoding()
    with pytest.raises(AnimegenError, match="ends before its first frame"):
        VideoReader(tmp_path / "empty.mkv")
    path = write_film(tmp_path / "film.mp4", [noise(0)])
    _destroy(path, slice(None))
    with pytest.raises(AnimegenError, match="holds no frame that can be read"):
        VideoReader(path)


def _destroy(path: Path, which: slice) -> None:
    """Overwrite packets of a video."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for begin, size in places[which]:
        data[begin : begin + size] = b"\xff" * size
    path.write_bytes(data)


def test_memory_does_not_grow(tmp_path: Path) -> None:
    path = write_film(tmp_path / "film.mp4", (level(n % 256, 32, 32) for n in range(1000)))
    sizes = []
    tracemalloc.start()
    for count, _ in enumerate(VideoReader(path), start=1):
        if count in (100, 1000):
            sizes.append(tracemalloc.get_traced_memory()[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 1000
    assert sizes[1] - sizes[0] < 100_000  # 900 frames are 2.8 million bytes; PyAV itself keeps 64 of each
    assert peak < 1_000_000


def test_a_header_with_the_rate_of_the_clock(tmp_path: Path) -> None:
    """Matroska need not say its rate; FFmpeg then takes its thousandths of a second for frames."""
    plain = write_film(tmp_path / "plain.mp4", [level(n) for n in range(30)], fps=Fraction(25))
    path = write_film(tmp_path / "film.mkv", [level(n) for n in range(30)], fps=Fraction(25), copy_from=plain)
    assert VideoReader(path).info.fps == 25


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_a_video_that_starts_late_is_whole(suffix: str, tmp_path: Path) -> None:
    times = [10 + Fraction(n, 24) for n in range(30)]
    whole = write_film(tmp_path / f"late{suffix}", [noise(n) for n in range(30)], times)
    reader = VideoReader(whole)
    assert [round(float(time), 2) for _, time in reader] == [round(n / 24, 2) for n in range(30)]
    assert reader.problems == []
    assert reader.info.expected_frames == 30
    assert reader.info.duration == pytest.approx(Fraction(30, 24), abs=1e-3)
    data = whole.read_bytes()
    if suffix == ".mkv":  # others cannot be opened without their end
        (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
        cut = VideoReader(tmp_path / "cut.mkv")
        list(cut)
        assert any("cut off" in problem for problem in cut.problems)
