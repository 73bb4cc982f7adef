"""FFmpeg's motion compensation as a baseline: what moves is found where it should be, at any time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.media.video.mci import available, motion_compensated

pytestmark = pytest.mark.skipif(not available(), reason="this FFmpeg has no minterpolate")


def sliding(count: int) -> list[Tensor]:
    """Views (3,64,96) of one soft texture, each a pixel further to the right."""
    noise = torch.rand(1, 3, 64, 96 + count, generator=torch.Generator().manual_seed(0)) * 2 - 1
    texture = F.avg_pool2d(noise, 5, 1, 2)[0]
    return [texture[..., n : n + 96] for n in range(count)]


def error(drawn: Tensor, truth: Tensor) -> float:
    return float((drawn - truth)[..., 12:-12, 12:-12].abs().mean())


def test_a_sliding_texture_is_drawn_where_it_is_at_each_time() -> None:
    frames = sliding(5)
    first, last = (frame[None].repeat(3, 1, 1, 1) for frame in (frames[0], frames[4]))
    drawn = motion_compensated(first, last, torch.tensor([0.25, 0.5, 0.75]))
    for row, truth in zip(drawn, frames[1:4], strict=True):
        errors = [error(row, frame) for frame in frames]
        assert min(errors) == error(row, truth)
        assert error(row, truth) < error((frames[0] + frames[4]) / 2, truth) / 2


def test_what_stands_still_stays_and_the_ends_are_the_frames() -> None:
    first, other = (frame[None] for frame in sliding(2))
    still = motion_compensated(first, first, torch.tensor([0.5]))
    assert (still - first).abs().max() < 4 / 127.5  # there and back between RGB and YUV of 8 bits
    assert still.dtype == first.dtype
    assert (motion_compensated(first, other, torch.tensor([0.0])) - first).abs().max() < 1 / 127.5
    assert (motion_compensated(first, other, torch.tensor([1.0])) - other).abs().max() < 1 / 127.5
