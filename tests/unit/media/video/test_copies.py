"""What a video takes over from its source: whatever fits, and a sentence for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import pytest

from animegen.media.video import copies
from animegen.media.video.copies import Copies, plan_copies
from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import VideoInfo
from animegen.media.video.writer import VideoWriter
from tests.odd_films import OddFilm, measure
from tests.video_support import FAST, noise


def planned(source: Path, container: str = "mp4", rate: Fraction = Fraction(24)) -> Copies:
    encoding = Encoding("libvpx-vp9") if container == "webm" else FAST
    return plan_copies(source, container, encoding, rate, Fraction(0))


@pytest.mark.parametrize(
    ("film", "container", "streams", "told"),
    [
        (OddFilm(".mkv", attachment=True), "mp4", {1: None}, ["The attachment stream 2 (font.ttf)"]),
        (OddFilm(".mkv", cover=True), "mov", {1: None}, ["The image stream 2 (png)"]),
        (OddFilm(".mkv", attachment=True), "matroska", {1: None, 2: None}, []),
        (OddFilm(".avi", "mjpeg", "adpcm_ms", pix_fmt="yuvj420p"), "mp4", {1: "aac"}, ["sound stream 1 (adpcm_ms)"]),
        (OddFilm(".mkv", sound="ac3"), "webm", {1: "libopus"}, ["The sound stream 1 (ac3)"]),
        (OddFilm(".mp4", subtitles="mov_text"), "webm", {1: "libopus", 2: "webvtt"}, ["sound stream 1", "(mov_text)"]),
    ],
)
def test_streams(
    film: OddFilm, container: str, streams: Mapping[int, str | None], told: list[str], tmp_path: Path
) -> None:
    plan = planned(film.write(tmp_path / f"in{film.suffix}"), container)
    assert plan.streams == streams
    assert len(plan.notes) == len(told)
    assert all(part in note for part, note in zip(told, plan.notes, strict=True))


def test_a_time_code_that_the_rate_does_not_have_is_left_out(tmp_path: Path) -> None:
    ntsc, drop_frame = Fraction(30000, 1001), "01:00:00;20"
    source = OddFilm(".mov", rate=ntsc, timecode=drop_frame).write(tmp_path / "in.mov")
    assert planned(source, "mov", 2 * ntsc).timecode == drop_frame
    plan = planned(source, "mov")
    assert plan.timecode is None
    assert plan.streams == {1: None}
    assert any(f"The time code {drop_frame}" in note for note in plan.notes)


def test_what_is_refused_in_the_end_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial sees the beginning only; the video is never lost for its sound."""
    source = OddFilm(".avi", "mjpeg", "adpcm_ms", pix_fmt="yuvj420p", tags={"title": "T"}).write(tmp_path / "in.avi")
    monkeypatch.setattr(copies, "_trial", lambda *_: True)
    writer = VideoWriter(tmp_path / "out.mp4", VideoInfo(24, 16), FAST, source)
    for number in range(24):
        writer.write(noise(number), Fraction(number, 24))
    writer.close()
    assert any("cannot be stored in this file and were left out" in note for note in writer.notes)
    made = measure(tmp_path / "out.mp4")
    assert made.kinds == [("video", "h264")]
    assert made.frames == 24
