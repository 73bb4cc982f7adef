"""Clips between images of any size, length and number, by models that know only some of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.inference.generation import ClipDrawer
from animegen.tasks.clip_adapter import InterpolatorAsClipGenerator
from animegen.tasks.protocols import ClipGenerator, Interpolator, Sampling


class Fader:
    """A clip generator that draws the cross-fade, and notes what it was asked for."""

    size_divisor = 1

    def __init__(self, max_frames: int | None = None, max_size: tuple[int, int] | None = None) -> None:
        if max_frames is not None:
            self.max_frames = max_frames
        if max_size is not None:
            self.max_size = max_size
        self.calls: list[tuple[int, int, list[int], tuple[int, int]]] = []

    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        assert sampling is not None
        self.calls.append((frames, sampling.seed, sorted(keys or {}), tuple(first.shape[-2:])))
        given = {0: first, **(keys or {}), frames - 1: last}
        marks = sorted(given)
        clip = []
        for t in range(frames):
            after = next(mark for mark in marks if mark >= max(t, 1))
            before = marks[marks.index(after) - 1]
            clip.append(torch.lerp(given[before], given[after], (t - before) / (after - before)))
        return torch.stack(clip, 1)


class Blend:
    """An interpolator that draws the cross-fade."""

    size_divisor = 1

    def encode_pair(self, first: Tensor, last: Tensor) -> Any:
        return first, last

    def synthesize(self, encoded: Any, t: Tensor) -> Tensor:
        return torch.lerp(*encoded, t.view(-1, 1, 1, 1))


def flat(*levels: int, size: tuple[int, int] = (4, 6)) -> list[Tensor]:
    return [torch.full((3, *size), level, dtype=torch.uint8) for level in levels]


def levels(clip: Tensor) -> list[int]:
    assert (clip == clip[:, :, :1, :1, :1]).all()
    return clip[0, :, 0, 0, 0].tolist()


def test_the_fakes_are_what_they_claim() -> None:
    assert isinstance(Fader(), ClipGenerator)
    assert isinstance(Blend(), Interpolator)
    assert isinstance(InterpolatorAsClipGenerator(Blend()), ClipGenerator)


@pytest.mark.parametrize("model", [Fader(), InterpolatorAsClipGenerator(Blend())], ids=["generator", "interpolator"])
def test_frames_lie_evenly_between_two_images_and_between_several(model: Any) -> None:
    assert levels(ClipDrawer(model)(flat(0, 100), 5)) == [0, 25, 50, 75, 100]
    # The shared key frame stands once.
    assert levels(ClipDrawer(model)(flat(0, 100, 20), 5)) == [0, 25, 50, 75, 100, 80, 60, 40, 20]
    assert levels(ClipDrawer(model)(flat(30, 30), 3)) == [30, 30, 30]


def test_a_chain_is_one_clip_if_the_model_knows_its_length_and_else_one_per_gap() -> None:
    model = Fader(max_frames=9)
    ClipDrawer(model)(flat(0, 100, 20), 5)
    assert model.calls == [(9, 0, [4], (4, 6))]
    model = Fader(max_frames=8)
    assert levels(ClipDrawer(model, samples=3)(flat(0, 100, 20), 5)) == [0, 25, 50, 75, 100, 80, 60, 40, 20]
    # Three samples use three seeds a call.
    assert model.calls == [(5, 0, [], (4, 6)), (5, 3, [], (4, 6))]


def test_long_gaps_are_cut_in_two_until_the_model_knows_them() -> None:
    model = Fader(max_frames=6)
    draw = ClipDrawer(model, sampling=Sampling(seed=7))
    assert levels(draw(flat(0, 120), 13)) == list(range(0, 121, 10))
    # 12 intervals: the middle of a clip of five frames, then 6 and 6, each again into 3 and 3.
    assert [call[0] for call in model.calls] == [5, 5, 4, 4, 5, 4, 4]
    assert [call[1] for call in model.calls] == list(range(7, 14))
    assert draw.notes == ["gaps of more than 5 frames were cut in two"]
    model.calls.clear()
    draw(flat(0, 120), 13)  # the same clip again: the seeds begin anew, and so do the notes
    assert [call[1] for call in model.calls] == list(range(7, 14))
    assert len(draw.notes) == 1
    model = Fader(max_frames=3)
    assert levels(ClipDrawer(model)(flat(0, 80), 9)) == list(range(0, 81, 10))


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((4, 6), (4, 6)), ((16, 16), (8, 8)), ((9, 40), (4, 16)), ((40, 9), (8, 2)), ((8, 16), (8, 16))],
)
def test_images_larger_than_the_model_knows_are_scaled_and_the_ends_stay(
    size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    model = Fader(max_size=(8, 16))
    pictures = list(torch.randint(256, (2, 3, *size), dtype=torch.uint8))
    draw = ClipDrawer(model)
    clip = draw(pictures, 3)
    assert clip.shape == (1, 3, 3, *size)
    assert model.calls[0][3] == drawn
    assert torch.equal(clip[0, 0], pictures[0])
    assert torch.equal(clip[0, 2], pictures[1])
    assert bool(draw.notes) == (drawn != size)


def test_models_without_clips_and_images_that_are_none_are_refused() -> None:
    with pytest.raises(AnimegenError, match="clips of 2 frames: there is none between"):
        ClipDrawer(Fader(max_frames=2))

    class Broken(Fader):
        def generate(self, *args: Any, **more: Any) -> Tensor:
            return super().generate(*args, **more) * torch.nan

    with pytest.raises(AnimegenError, match="no image"):
        ClipDrawer(Broken())(flat(0, 1), 3)
