"""Windows of films."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen import AnimegenError
from animegen.data.clips import FilmView


class Counted:
    """Two clips of 20 frames, 30x40, whose pixels are the number of the frame; a square changes in the second one."""

    def __len__(self) -> int:
        return 2

    def name(self, index: int) -> str:
        return f"clip-{index}"

    def length(self, index: int) -> int:
        return 20

    def load(self, index: int, number: int) -> Tensor:
        frame = torch.full((3, 30, 40), number, dtype=torch.uint8)
        if index:
            frame[:, :16, :16] += 100 * (number % 2)
        return frame


def test_a_window_has_consecutive_frames_in_order() -> None:
    view = FilmView(Counted(), length=5, size=16)
    starts = set()
    for number in range(20):
        window = view[number]["photo"]
        assert window.shape == (5, 3, 16, 16)
        last = window[:, 0, -1, -1].int() % 100
        assert (last[1:] - last[:-1] == 1).all()
        starts.add(int(last[0]))
        assert torch.equal(window, view[number]["photo"])
    assert len(starts) > 5
    assert view.aligned == [["photo"]]


def test_training_prefers_what_moves() -> None:
    def share(windows: int) -> float:
        view = FilmView(Counted(), length=4, size=16, windows=windows, seed=1)
        moving = [bool((view[n]["photo"] >= 100).any()) for n in range(60) if view.name(n).startswith("clip-1")]
        return sum(moving) / len(moving)

    assert share(8) >= share(1)


def test_evaluation_takes_the_centre_of_each_clip() -> None:
    view = FilmView(Counted(), length=4, size=16, shuffle=False)
    assert len(view) == 2
    assert view[0]["photo"][:, 0, 0, 0].tolist() == [8, 9, 10, 11]


def test_a_window_needs_three_frames() -> None:
    with pytest.raises(AnimegenError, match="length=2"):
        FilmView(Counted(), length=2)
