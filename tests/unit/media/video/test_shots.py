"""Shots: every cut of the generated videos and nothing else; flashes are no cuts, a fade is one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from animegen.errors import AnimegenError
from animegen.media.video.shots import detect_shots
from animegen.toonworld import Film


def cuts(film: object) -> list[int]:
    return [first for first, _ in detect_shots(film)[1:]]  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("look", "hold"), [("photo", 1), ("print", 3), ("meadow", None)])
def test_cuts_are_found_and_flashes_are_not(seed: int, look: str, hold: int | None) -> None:
    film = Film((14, 9, 16), look, size=64, seed=seed, flash_count=3, hold=hold)
    assert len(film.flashes) == 3
    assert cuts(film) == film.cuts  # precision and recall 1


def test_shots_cover_the_video() -> None:
    film = Film((10, 12, 8), size=64)
    shots = detect_shots(film)
    assert shots == [(0, 10), (10, 22), (22, 30)]
    assert all(stop == first for (_, stop), (first, _) in pairwise(shots))
    assert detect_shots(torch.from_numpy(frame.transpose(2, 0, 1)) for frame in film) == shots


def test_flashes_are_reported() -> None:
    frames = [np.full((36, 64, 3), 60, np.uint8) for _ in range(40)]
    for number, frame in enumerate(frames):
        frame[:, 2 + number // 2 : 20 + number // 2] = 120
    for number in (10, 25, 26, 27):
        frames[number] = np.full((36, 64, 3), 250, np.uint8)
    flashes: list[int] = []
    assert detect_shots(frames, flashes=flashes) == [(0, 40)]
    assert flashes == [10, 11, 25, 28]


def test_a_flash_is_a_cut_only_on_request() -> None:
    film = list(Film((24,), size=64))
    for n in (11, 12, 13):
        film[n] = np.rint(film[n] + 0.9 * (255.0 - film[n])).astype(np.uint8)
    assert detect_shots(film) == [(0, 24)]
    assert detect_shots(film, flash=2) != [(0, 24)]
    assert detect_shots(film, flash=0) != [(0, 24)]


@pytest.mark.parametrize(("down", "dark", "up"), [(8, 4, 8), (4, 2, 4), (12, 9, 12), (1, 4, 1), (8, 2, 1)])
def test_a_fade_through_black_is_one_cut_in_the_dark(down: int, dark: int, up: int) -> None:
    film = list(Film((24, 24), "photo", size=64))
    begin, end = 24 - dark // 2, 24 + (dark + 1) // 2  # of the black part
    for n, frame in enumerate(film):
        gain = np.clip((begin - n) / (down + 1) if n < begin else (n - end + 1) / (up + 1), 0, 1)
        film[n] = (frame * (gain if not begin <= n < end else 0)).astype(np.uint8)
    found = cuts(film)
    assert len(found) == 1
    assert begin <= found[0] <= end


def test_a_video_faded_in_and_out_is_one_shot() -> None:
    film = [
        (frame * np.clip(min(n - 3, 26 - n) / 8, 0, 1)).astype(np.uint8) for n, frame in enumerate(Film((30,), size=64))
    ]
    assert film[0].max() == film[-1].max() == 0
    assert detect_shots(film) == [(0, 30)]


def test_the_noise_of_letterbox_black_is_no_change() -> None:
    """Black bars change by a level in one channel, which turns hue and saturation round."""
    film = list(Film((20,), size=64))
    for n, frame in enumerate(film):
        frame[:24] = frame[40:] = (0, 0, 0) if n < 10 else (0, 0, 1)
    assert detect_shots(film) == [(0, 20)]


def test_frames_pass_once_and_are_not_kept() -> None:
    alive = []

    def frames() -> Iterator[np.ndarray]:
        for shade in [60] * 100 + [200] * 100:
            frame = np.full((16, 16, 3), shade, np.uint8)
            frame[:8] //= 2
            alive.append(1)
            yield frame

    assert detect_shots(frames()) == [(0, 100), (100, 200)]
    assert len(alive) == 200


def test_files_are_numbered_as_decoded(tmp_path: Path) -> None:
    film = Film((12, 10), size=64, flash_count=1)
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width = stream.height = 64
        stream.pix_fmt = "bgr0"
        for n, frame in enumerate(film):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            picture.pts = 3 * n  # not the rate's: numbers count frames, not time
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert detect_shots(path) == detect_shots(film) == [(0, 12), (12, 22)]


def test_invalid_values_are_reported(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match=r"'nowhere.mp4' does not exist"):
        detect_shots("nowhere.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(AnimegenError, match="cannot be read"):
        detect_shots(tmp_path / "text.mp4")
    with pytest.raises(AnimegenError, match="no frame"):
        detect_shots([])
    with pytest.raises(TypeError, match="uint8 RGB"):
        detect_shots([np.zeros((4, 4, 3))])
