"""Films with unusual streams, clocks, tags and rates through ``stylize`` and ``interpolate``, read back with PyAV."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from torch import Tensor, nn

from animegen.cli import interpolate as interpolate_verb
from animegen.cli import stylize as stylize_verb
from animegen.inference import application
from tests.odd_films import OddFilm, measure

NTSC = Fraction(24000, 1001)
FAST = ("preset=ultrafast", "cuts=false", "device=cpu", "checkpoint=some.ckpt")
#: Name -> video, output. The first six are quick.
FILMS: dict[str, tuple[OddFilm, str]] = {
    "late_clock": (OddFilm(".ts", offset="36000"), ".mp4"),
    "ntsc_matroska": (OddFilm(".mkv", rate=NTSC), ".mp4"),
    "everything": (
        OddFilm(".mkv", subtitles="subrip", attachment=True, cover=True, chapters=True, tags={"title": "T"}),
        ".mp4",
    ),
    "timecode": (OddFilm(".mov", timecode="01:00:00:00"), ".mov"),
    "joined": (OddFilm(".ts", parts=2), ".mp4"),
    "negative": (OddFilm(".mkv", first=-12, options={"avoid_negative_ts": "disabled"}), ".mp4"),
    "usual_clock": (OddFilm(".ts"), ".mkv"),
    "wrapping_clock": (OddFilm(".ts", offset="95442.5"), ".mp4"),
    "wrapping_to_matroska": (OddFilm(".ts", offset="95442.9"), ".mkv"),
    "program_stream": (OddFilm(".mpg", "mpeg2video", "mp2", Fraction(25)), ".mp4"),
    "program_to_matroska": (OddFilm(".mpg", "mpeg2video", "mp2", Fraction(30000, 1001)), ".mkv"),
    "late_matroska": (OddFilm(".mkv", offset="10"), ".mp4"),
    "late_images": (OddFilm(".mkv", first=6), ".mp4"),
    "negative_mp4": (OddFilm(".mp4", first=-6, options={"avoid_negative_ts": "disabled"}), ".mkv"),
    "repeated_times": (OddFilm(".mkv", sound="mp2", repeated=(5, 9)), ".mp4"),
    "flash_video": (OddFilm(".flv", rate=Fraction(30)), ".mp4"),
    "avi": (OddFilm(".avi", "mjpeg", "mp3", pix_fmt="yuvj420p"), ".mp4"),
    "uneven": (OddFilm(".mkv", uneven=5), ".mp4"),
    "uneven_to_matroska": (OddFilm(".mp4", uneven=4, rate=Fraction(30)), ".mkv"),
    "fast": (OddFilm(".mkv", rate=Fraction(60000, 1001)), ".mov"),
    "slow": (OddFilm(".mp4", rate=Fraction(12)), ".mkv"),
    "silent": (OddFilm(".mkv", sound=None, rate=NTSC), ".mkv"),
    "opus": (OddFilm(".mkv", sound="libopus"), ".mp4"),
    "flac": (OddFilm(".mkv", sound="flac"), ".mov"),
    "pcm": (OddFilm(".mov", sound="pcm_s16le"), ".mp4"),
    "two_sounds": (OddFilm(".mkv", sound="aac", second_sound="ac3"), ".mov"),
    "subtitles_to_matroska": (OddFilm(".mp4", subtitles="mov_text", tags={"title": "T"}), ".mkv"),
    "styled_subtitles": (OddFilm(".mkv", subtitles="ass", attachment=True), ".mkv"),
    "timecode_to_mp4": (OddFilm(".mov", timecode="10:20:30:12"), ".mp4"),
    "chapters": (OddFilm(".mkv", chapters=True, cover=True), ".mkv"),
}


class Blends(nn.Module):
    """Return the frame itself, or the blend of two."""

    size_divisor = 2

    def stylize(self, frames: Tensor, state: Any, style: Any = None) -> tuple[Tensor, Any]:
        return frames, state

    def encode_pair(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        return first, last

    def synthesize(self, encoded: tuple[Tensor, Tensor], t: Tensor) -> Tensor:
        return torch.lerp(*encoded, float(t))


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "load_model", lambda *_, **__: Blends().eval())
    monkeypatch.setattr(application, "resolve_checkpoint", lambda path, runs: Path(path))


@pytest.mark.parametrize("verb", ["stylize", "interpolate"])
@pytest.mark.parametrize("name", [n if k < 6 else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(FILMS)])
def test_odd_videos(name: str, verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Length, rate, sync and streams are right or reported."""
    film, suffix = FILMS[name]
    source, target = film.write(tmp_path / f"in{film.suffix}"), tmp_path / f"out{suffix}"
    main, factor = (stylize_verb.main, 1) if verb == "stylize" else (interpolate_verb.main, 2)
    code = main([*FAST, f"input={source}", f"output={target}"])
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert code == (film.parts > 1), said
    made = measure(target)

    tick = Fraction(1, 1000) if suffix == ".mkv" else Fraction(1, 20000)
    times = film.times()
    if film.suffix == ".avi":  # FFmpeg's AVI begins with a frame that lasts twice as long
        times = measure(source).times
    elif film.suffix == ".mp4":  # MP4 hides what is before zero
        times = [time for time in times if time >= 0]
    assert made.frames == len(times) * film.parts * factor
    steps = [b - a for a, b in pairwise(times)]
    if film.parts == 1:
        found = [b - a for a, b in pairwise(made.times)][:: 1 if factor == 1 else 2]
        assert all(abs(a * factor - b) <= 2 * tick for a, b in zip(found, steps, strict=False))
    length = (times[-1] - times[0] + 1 / film.rate) * film.parts
    assert abs(made.end - made.times[0] - length) <= 3 * tick
    assert 0 <= made.times[0] <= max(Fraction(film.first) / film.rate, 0) + Fraction(3, 100)
    if not film.uneven and film.suffix != ".avi":
        assert made.rates[0] is not None
        assert made.rates[1] is not None
        assert abs(made.rates[0] / factor - film.rate) < film.rate / 500
        # Matroska counts the duration of a frame in nanoseconds.
        assert made.rates[1] == pytest.approx(film.rate * factor, rel=1e-6 if suffix == ".mkv" else 0)
        assert abs(cv2.VideoCapture(str(target)).get(cv2.CAP_PROP_FRAME_COUNT) - made.frames) <= 2

    if film.sound:
        assert made.tone is not None
        assert abs(made.tone - made.flash) <= Fraction(1, 50) + 1 / film.rate / 2 * (factor - 1)
    sounds = sum(kind == "audio" for kind, _ in made.kinds)
    assert sounds == bool(film.sound) + bool(film.second_sound)
    if film.subtitles:
        assert [text for _, text in made.texts] == [b"hello", b"you"]
        assert [round(float(time), 2) for time, _ in made.texts] == [0.1, 0.6]
    assert ("is converted to" in said) == (name in ("everything", "flac", "subtitles_to_matroska")), said
    assert (("attachment", "") in made.kinds) == (film.attachment and suffix == ".mkv")
    assert ("attachment stream" in said) == (film.attachment and suffix != ".mkv")
    assert len([k for k in made.kinds if k in (("video", "png"), ("video", "mjpeg"))]) == film.cover
    assert made.timecode == film.timecode
    assert made.chapters == ([(0, "one"), (Fraction(1, 2), "two")] if film.chapters else [])
    assert made.tags.get("title") == film.tags.get("title")
    assert ("set again" in said) == (film.parts > 1)
