"""The measurement of decoding: turns, and the best of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from animegen.media.video.frames import VideoInfo
from animegen.media.video.reader import VideoReader
from animegen.speed import video as bench
from tests.video_support import level, write_film


def test_decoding_and_ffmpeg_take_turns_and_the_best_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SIZE", (36, 64))
    monkeypatch.setattr(bench, "LENGTH", 24)
    order: list[str] = []
    ours = iter([bench.Turn(rate, 1 / rate) for rate in (80.0, 125.0, 90.0, 30.0, 110.0)])
    theirs = iter([bench.Turn(rate, 1 / rate) for rate in (60.0, 20.0, 100.0, 40.0, 50.0)])

    def decode(reader: object, seconds: float) -> bench.Turn:
        order.append(f"ours {seconds:.2f}")
        return next(ours)

    def ffmpeg(film: Path, info: object, seconds: float) -> bench.Turn:
        order.append(f"ffmpeg {seconds:.2f}")
        return next(theirs)

    monkeypatch.setattr(bench, "_decode", decode)
    monkeypatch.setattr(bench, "_ffmpeg", ffmpeg)
    rows = bench.measure(None, 0.05)
    assert order == ["ours 0.01", "ffmpeg 0.01"] * 5
    assert rows["decode to RGB tensors, frames/s"] == 125
    assert rows["decode to RGB tensors, ms of CPU time per frame"] == pytest.approx(8)
    assert rows["ffmpeg to an RGB pipe, frames/s"] == 100
    assert rows["ffmpeg to an RGB pipe, ms of CPU time per frame"] == pytest.approx(10)
    assert rows["decode, times less CPU time than ffmpeg"] == pytest.approx(1.25)


def test_whole_videos_are_decoded_until_the_time_is_over(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", [level(n) for n in range(10)])
    turn = bench._decode(VideoReader(film), 0.0)
    assert 0 < turn.rate < 1e5
    assert 0 <= turn.work < 1


def test_other_programs_are_counted_by_their_frames_or_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stand-ins for ffmpeg: one that gives three frames of 24x16, one that gives none."""
    three, none = tmp_path / "three", tmp_path / "none"
    three.write_text(f"#!/bin/sh\nhead -c {3 * 3 * 24 * 16} /dev/zero\n")
    none.write_text("#!/bin/sh\nexit 1\n")
    info = VideoInfo(24, 16)
    for program in (three, none):
        program.chmod(0o755)
    monkeypatch.setattr(bench.shutil, "which", lambda name: str(three))
    turn = bench._ffmpeg("film.mp4", info, 0.0)
    assert isinstance(turn, bench.Turn)
    assert turn.rate > 0
    monkeypatch.setattr(bench.shutil, "which", lambda name: str(none))
    assert bench._ffmpeg("film.mp4", info, 0.0) == "ffmpeg did not decode it"
