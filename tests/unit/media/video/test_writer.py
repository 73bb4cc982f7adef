"""Writing: times and sound to the bit, nothing half-written, mistakes told beforehand."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch

from animegen.errors import AnimegenError
from animegen.media.video import remux
from animegen.media.video.encoding import Encoding, check_encoding
from animegen.media.video.frames import VideoInfo
from animegen.media.video.reader import VideoReader
from animegen.media.video.remux import Segment, join
from animegen.media.video.writer import VideoWriter
from tests.video_support import EXACT, FAST, level, noise, other_packets, with_sound, write_film


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_sound_is_copied_to_the_bit(suffix: str, tmp_path: Path) -> None:
    sound = with_sound(tmp_path / "sound.mp4", 1.5)
    path = write_film(tmp_path / f"film{suffix}", [noise(n) for n in range(36)], copy_from=sound)
    before, after = other_packets(sound), other_packets(path)
    assert len(before) > 20
    assert [data for data, _ in before] == [data for data, _ in after]
    tolerance = Fraction(1, 2000) if suffix == ".mkv" else 0
    assert all(abs(a - b) <= tolerance for (_, a), (_, b) in zip(before, after, strict=True))
    info = VideoReader(path).info
    assert info.has_audio
    assert info.expected_frames == 36


def _film_with_subtitles(path: Path, codec: str) -> Path:
    lines = {"subrip": (b"hello", b"you"), "mov_text": (b"\x00\x05hello", b"\x00\x03you")}[codec]
    picture = write_film(path.with_name("picture.mp4"), [noise(n) for n in range(30)])
    with av.open(str(picture)) as source, av.open(str(path), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0], opaque=True)
        text = container.add_mux_stream(codec)
        text.time_base = Fraction(1, 1000)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        for number, line in enumerate(lines):
            packet = av.Packet(line)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = 100 + 500 * number
            packet.duration = 400
            container.mux(packet)
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "subrip"), (".mp4", "mov_text")])
def test_subtitles_are_copied(suffix: str, codec: str, tmp_path: Path) -> None:
    source = _film_with_subtitles(tmp_path / f"source{suffix}", codec)
    path = write_film(tmp_path / f"film{suffix}", [noise(n) for n in range(30)], copy_from=source)
    before = other_packets(source, "subtitle")
    assert {b"hello", b"you"} <= {data[-5:] if b"hello" in data else data[-3:] for data, _ in before}
    assert other_packets(path, "subtitle") == before


def test_pieces_are_joined_with_exact_times(tmp_path: Path) -> None:
    """Pieces of 1, 7 and 40 frames with frames that are decoded late; one video, written whole, is the standard."""
    film = [noise(0, 32, 32).roll(n, 2) for n in range(48)]  # motion, so that frames are decoded late
    steps = [3 if n % 5 == 0 else 1 for n in range(48)]
    times = [Fraction(1001 * sum(steps[:n]), 24000) for n in range(48)]
    base = Fraction(1, 24000)
    encoding = Encoding(preset="medium", crf=20)
    segments = []
    for number, (first, stop) in enumerate([(0, 1), (1, 8), (8, 48)]):
        own = [time - times[first] for time in times[first:stop]]
        end = (times[stop] if stop < 48 else times[-1] + Fraction(1001, 24000)) - times[first]
        path = write_film(tmp_path / f"{number}.mp4", film[first:stop], own, time_base=base, encoding=encoding, end=end)
        segments.append(Segment(path, times[first], times[first] + end))
    for suffix in (".mp4", ".mkv"):
        target = tmp_path / f"film{suffix}"
        assert join(segments, target, VideoInfo(32, 32)) == []
        reader = VideoReader(target)
        read = list(reader)
        tolerance = 0 if suffix == ".mp4" else Fraction(1, 2000)
        assert all(abs(time - wanted) <= tolerance for (_, time), wanted in zip(read, times, strict=True))
        pieces = [pixels for segment in segments for pixels, _ in VideoReader(segment.path)]
        assert all(torch.equal(pixels, piece) for (pixels, _), piece in zip(read, pieces, strict=True))
        with av.open(str(target)) as container:
            decoding = [packet.dts for packet in container.demux(video=0) if packet.dts is not None]
        assert decoding == sorted(set(decoding))
        assert decoding[0] < 0 or suffix == ".mkv"  # some are decoded late
        assert not reader.problems
    assert VideoReader(tmp_path / "film.mp4").info.duration == times[-1] + Fraction(1001, 24000)


def test_times_of_a_piece_begin_at_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = Segment(write_film(tmp_path / "1.mp4", [noise(n) for n in range(30)]), Fraction(2), Fraction(2) + 30)
    compared = []
    less = Fraction.__lt__
    monkeypatch.setattr(Fraction, "__lt__", lambda one, other: compared.append(one) or less(one, other))
    times = remux._times(piece)
    assert len(compared) < 60, "their number grows with the square: 10,000 frames took two minutes"
    assert sorted(times) == [2 + Fraction(n, 24) for n in range(30)]


def test_pieces_that_do_not_fit_together(tmp_path: Path) -> None:
    one = write_film(tmp_path / "1.mp4", [noise(0)])
    two = write_film(tmp_path / "2.mp4", [noise(0, 32, 32)])
    with pytest.raises(AnimegenError, match="was encoded otherwise"):
        join(
            [Segment(one, Fraction(0), Fraction(1)), Segment(two, Fraction(1), Fraction(2))],
            tmp_path / "film.mp4",
            VideoInfo(24, 16),
        )


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_videos(codec: str, count: int, tmp_path: Path) -> None:
    encoding = Encoding(codec, preset="12" if codec == "libsvtav1" else "ultrafast")
    path = write_film(tmp_path / "film.mp4", [level(100, 64, 64)] * count, encoding=encoding)
    assert [time for _, time in VideoReader(path)] == [Fraction(n, 24) for n in range(count)]
    assert VideoReader(path).info.duration == Fraction(count, 24)


def test_odd_sides_repeat_the_edge(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "film.mp4", VideoInfo(23, 15), Encoding(crf=1))
    ramp = torch.arange(23, dtype=torch.uint8).mul(10).expand(3, 15, 23).contiguous()
    writer.write(ramp, Fraction(0))
    writer.close()
    assert "has 24x16 instead of 23x15 pixels" in writer.notes[0]
    result = VideoReader(writer.path).at(0).int()
    assert tuple(result.shape) == (3, 16, 24)
    assert (result[:, :15, :23] - ramp.int()).abs().max() <= 4
    assert (result[..., 23] - 220).abs().max() <= 4
    unpadded = write_film(tmp_path / "rgb.mp4", [ramp], encoding=EXACT)
    assert torch.equal(VideoReader(unpadded).at(0), ramp)


def test_nothing_is_left_of_a_video_that_fails(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"mine")

    def fails() -> None:
        with VideoWriter(tmp_path / "film.mp4", VideoInfo(24, 16), FAST) as writer:
            writer.write(noise(0), Fraction(0))
            assert (tmp_path / "film.mp4").read_bytes() == b"mine"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_bytes() == b"mine"


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(AnimegenError, match="there is no frame for it"),
        VideoWriter(tmp_path / "film.mp4", VideoInfo(24, 16), FAST),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_frames_in_disorder(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "film.mp4", VideoInfo(24, 16), FAST) as writer:
        writer.write(level(0), Fraction(1))
        with pytest.raises(ValueError, match="after one at 1 s"):
            writer.write(level(0), Fraction(1))
        with pytest.raises(ValueError, match=r"uint8 \(3, 16, 24\)"):
            writer.write(level(0, 8, 8), Fraction(2))


@pytest.mark.parametrize(
    ("encoding", "name", "message"),
    [
        (Encoding("libx246"), "x.mp4", "Did you mean .*'libx264'"),
        (Encoding("mpeg4", crf=20), "x.mp4", "crf=20 has no effect with codec=mpeg4"),
        (Encoding(preset="quickly"), "x.mp4", "codec=libx264 refuses"),
        (Encoding(pix_fmt="yuv42p"), "x.mp4", "has no pix_fmt=yuv42p.*Did you mean .*'yuv420p'"),
        (Encoding("prores_ks", pix_fmt="yuv422p10le"), "x.mp4", "cannot be stored in mp4 files"),
        (Encoding(), "x.avi", "no suffix of a video that can be written"),
    ],
)
def test_invalid_values_are_reported_before_any_work(encoding: Encoding, name: str, message: str) -> None:
    with pytest.raises(AnimegenError, match=message):
        check_encoding(encoding, Path(name))


@pytest.mark.parametrize("encoding", [Encoding(), Encoding("libx265", crf=30), Encoding("mpeg4")])
def test_encodings_that_work(encoding: Encoding, tmp_path: Path) -> None:
    check_encoding(encoding, Path("x.mkv"))
    path = write_film(tmp_path / "film.mp4", [level(90, 64, 64)] * 5, encoding=encoding)
    assert VideoReader(path).info.codec == {"libx264": "h264", "libx265": "hevc"}.get(encoding.codec, "mpeg4")
    assert (VideoReader(path).at(0).int() - 90).abs().max() <= 3
