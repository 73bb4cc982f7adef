"""The temporal filter on a video that is read once: the frames of the whole clip, and no more of it in memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.keyframes import BilateralFilter


def moving(count: int) -> Tensor:
    """Return noisy frames (count, 3, 32, 40) of an image that moves by 2 pixels per frame."""
    generator = torch.Generator().manual_seed(0)
    scene = F.interpolate(torch.rand(1, 3, 8, 24, generator=generator) * 100 + 70, (32, 96), mode="bicubic")[0]
    clip = torch.stack([scene[:, :, 2 * t : 2 * t + 40] for t in range(count)])
    return (clip + 5 * torch.randn(clip.shape, generator=generator)).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(("radius", "length"), [(2, 9), (3, 2), (0, 3), (1, 1)])
def test_a_stream_gives_the_frames_of_the_whole_clip(radius: int, length: int) -> None:
    clip = moving(length)
    filter_ = BilateralFilter(radius=radius, sigma_time=2.0)
    whole = filter_(clip)
    streamed = list(filter_.stream((frame, f"time {n}") for n, frame in enumerate(clip)))
    assert [tag for _, tag in streamed] == [f"time {n}" for n in range(length)]
    for n, (pixels, _) in enumerate(streamed):
        assert torch.equal(pixels, whole[n])
        assert radius == 0 or length == 1 or not torch.equal(pixels, clip[n])


def test_every_shot_is_filtered_by_itself() -> None:
    clip, filter_ = moving(8), BilateralFilter(radius=2)
    streamed = list(filter_.stream(zip(clip, range(10, 18), strict=True), cuts={10, 13, 14}, first=10))
    for begin, end in ((0, 3), (3, 4), (4, 8)):
        shot = filter_(clip[begin:end])
        for n in range(begin, end):
            assert torch.equal(streamed[n][0], shot[n - begin])
    assert [tag for _, tag in streamed] == list(range(10, 18))


def test_no_more_than_a_window_is_in_memory() -> None:
    clip, radius = moving(14), 2
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()
    most = 0

    def read() -> Iterator[tuple[Tensor, int]]:
        nonlocal most
        for number in range(len(clip)):
            frame = clip[number].clone()
            alive.add(frame)
            yield frame, number
            del frame
            gc.collect()
            most = max(most, len(alive))

    for taken, (_, number) in enumerate(BilateralFilter(radius=radius).stream(read())):
        assert taken == number
    assert most <= 2 * radius + 1
