"""Videos drawn by a filter."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from animegen.data.keyframes.filters import FILTERS, filtered_project, grade, ink, place, poster
from animegen.errors import AnimegenError


@pytest.fixture
def frame() -> np.ndarray:
    """Return a bright noisy area with a thin dark bar, beside a dark one."""
    picture = np.full((48, 64, 3), (200, 150, 120), np.uint8)
    picture[:, 40:] = (40, 60, 90)
    picture[:, 20] = (120, 90, 70)
    noise = np.random.default_rng(0).integers(-6, 7, picture.shape)
    return (picture + noise).astype(np.uint8)


def test_grade_maps_equal_colours_to_equal_colours(frame: np.ndarray) -> None:
    shuffled = np.random.default_rng(1).permutation(frame.reshape(-1, 3)).reshape(frame.shape)
    again = np.random.default_rng(1).permutation(grade(frame).reshape(-1, 3)).reshape(frame.shape)
    np.testing.assert_array_equal(grade(shuffled), again)
    assert grade(np.full((2, 2, 3), 255, np.uint8)).min() >= 230  # white stays nearly white, and warm
    assert np.ptp(grade(frame)[0, 50].astype(int)) > np.ptp(frame[0, 50].astype(int))  # more saturated


def test_poster_is_flat_where_the_frame_is_noisy(frame: np.ndarray) -> None:
    flat = poster(frame)
    assert frame[10:30, 45:60].std(axis=(0, 1)).mean() > 3
    assert flat[10:30, 45:60].std(axis=(0, 1)).mean() < 1.5


def test_ink_draws_the_thin_bar_and_nothing_in_flat_areas(frame: np.ndarray) -> None:
    lines = (ink(frame) == (24, 18, 30)).all(-1)
    assert lines[4:-4, 20].mean() > 0.9
    assert lines[:, 50:].mean() < 0.02


def test_place_turns_the_hue_by_the_position(frame: np.ndarray) -> None:
    hue = place(np.full((8, 36, 3), (200, 40, 40), np.uint8))
    assert len(np.unique(hue.reshape(-1, 3), axis=0)) > 12  # one colour in, many out
    np.testing.assert_array_equal(hue[0], hue[7])


def test_a_video_becomes_a_project_with_the_truth_of_every_frame(tmp_path: Path, frame: np.ndarray) -> None:
    for number in range(12):
        Image.fromarray(np.roll(frame, number, 1)).save(tmp_path / f"{number:03d}.png")
    project = filtered_project(tmp_path, "ink", keys=2, frames=8, start=2, size=26)
    assert project.size == (24, 32)  # 26 x 35, cut to multiples of 4
    assert project.keys == [2, 6]
    assert project.scored == [0, 1, 3, 4, 5, 7]
    assert project.truth is not None
    third = project.photo[3].permute(1, 2, 0).numpy()
    expected = torch.from_numpy(FILTERS["ink"](np.ascontiguousarray(third))).permute(2, 0, 1)
    torch.testing.assert_close(project.answer(3), expected)
    with pytest.raises(AnimegenError, match="has 10 frames from frame 2, not 20"):
        filtered_project(tmp_path, frames=20, start=2)
    with pytest.raises(AnimegenError, match="Did you mean 'poster'"):
        filtered_project(tmp_path, "postr")
    with pytest.raises(AnimegenError, match="keys=8, frames=8"):
        filtered_project(tmp_path, keys=8, frames=8)
