"""Videos of ToonWorld as files."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from animegen.cli import prepare
from animegen.media.video.generated import write_generated_video
from animegen.media.video.opening import open_video
from animegen.toonworld.film import Film
from tests.support import refused, run_verb
from tests.video_support import EXACT, other_packets


def test_frames_times_and_sound_are_those_of_the_video(tmp_path: Path) -> None:
    film = Film(shots=(4, 3), look="photo", size=32, variable_rate=True)
    write_generated_video(tmp_path / "film.mp4", film, EXACT)
    found = list(open_video(tmp_path / "film.mp4"))
    assert len(found) == 7
    for (pixels, frame), picture, seconds in zip(found, film, film.timestamps(), strict=True):
        np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), picture)
        assert frame == pytest.approx(Fraction(seconds), abs=1e-9)
    packets = other_packets(tmp_path / "film.mp4")
    assert packets[-1][1] == pytest.approx(float(film.durations.sum()), abs=2 * 1024 / 48000)


def test_prepare_draws_a_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "film.mkv"
    words = ("toonworld=meadow", f"output={output}", "shots=[5,4]", "side=32", "hold=2")
    assert run_verb(prepare.main, *words) == 0
    assert "9 frames at 24 per second, cuts at 5" in capsys.readouterr().out
    assert len(list(open_video(output))) == 9
    assert "exists: choose another output= or set overwrite=true" in refused(capsys, run_verb(prepare.main, *words))
    assert run_verb(prepare.main, *words, "overwrite=true") == 0
    told = refused(capsys, run_verb(prepare.main, "toonworld=medow", f"output={tmp_path / 'other.mp4'}"))
    assert "Did you mean 'meadow'" in told
    assert [file.name for file in tmp_path.iterdir()] == ["film.mkv"]
