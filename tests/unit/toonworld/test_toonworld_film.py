from itertools import pairwise

import numpy as np
import pytest

from animegen.errors import AnimegenError
from animegen.toonworld import HIDDEN, Film, Scene


def test_a_film_is_its_scenes_one_after_the_other():
    film = Film((3, 4, 2), "dusk", size=32, first_scene=2)
    frames = list(film)
    assert (len(film), len(frames), film.cuts) == (9, 9, [3, 7])
    assert [film.place(n) for n in (0, 2, 3, 6, 7, 8)] == [(0, 0), (0, 2), (1, 0), (1, 3), (2, 0), (2, 1)]
    np.testing.assert_array_equal(frames[5], Scene(0, "train", 3, 32, frames=4).anime(2, "dusk"))
    steps = [np.abs(b.astype(float) - a).mean() for a, b in pairwise(frames)]
    assert min(steps[2], steps[6]) > 2 * max(steps[k] for k in (0, 1, 3, 4, 5, 7))


def test_truth_stops_at_cuts():
    film = Film((4, 4), size=32)
    assert not film.flow(3, 4).any()
    assert (film.visibility(3, 4) == HIDDEN).all()
    np.testing.assert_array_equal(film.flow(5, 6), film.scene(1).flow(1, 2))
    assert (film.visibility(5, 6) != HIDDEN).mean() > 0.9


def test_flashes_are_white_and_no_cuts():
    plain, flashed = Film((12, 12), size=32), Film((12, 12), size=32, flash_count=3)
    assert len(flashed.flashes) == 3
    assert all(abs(n - 12) > 2 for n in flashed.flashes)
    for n in range(24):
        expected = plain.frame(n).astype(float)
        if n in flashed.flashes:
            expected = np.rint(expected + 0.8 * (255 - expected))
        np.testing.assert_array_equal(flashed.frame(n), expected)


def test_time_stamps_and_sound_cover_the_film():
    film = Film((6, 6), size=32, fps=12)
    np.testing.assert_allclose(film.timestamps(), np.arange(12) / 12)
    sound = film.audio(8000)
    assert len(sound) == 8000
    assert np.abs(sound).max() == pytest.approx(0.25, abs=1e-3)
    for part, hertz in ((sound[:4000], 220), (sound[4000:], 220 * 2**0.25)):
        spectrum = np.abs(np.fft.rfft(part * np.hanning(4000)))
        assert abs(np.argmax(spectrum) * 2 - hertz) <= 2  # bins of 2 Hz


def test_variable_rate_draws_whole_half_frames():
    film = Film((20, 20), size=32, fps=10, variable_rate=True)
    assert set(np.rint(film.durations * 20).astype(int)) == {1, 2, 3}
    np.testing.assert_allclose(np.diff(film.timestamps()), film.durations[:-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shots": ()}, "shots of 1 or more"),
        ({"shots": (4, 0)}, "shots of 1 or more"),
        ({"look": "noir"}, "choose one of photo"),
        ({"shots": (6,), "flash_count": 5}, "lower flash_count"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(AnimegenError, match=message):
        Film(**arguments)
