"""The in-between frame as the average along several trajectories."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen.media.images import to_float
from animegen.media.video.flow import DISFlow, flow_both_ways, flow_estimates
from animegen.metrics.image import psnr
from animegen.nn.inbetween.prior import flow_at, weighted_half_warp
from animegen.nn.inbetween.trajectories import average_warp, trajectories
from animegen.toonworld import ToonWorldImages

HALF = torch.tensor([0.5])


def frames(*numbers: int, size: int = 128) -> list[Tensor]:
    source = ToonWorldImages("meadow", "val", scenes=1, frames_per_scene=5, frames=24, size=size, speed=0.6)
    return [to_float(source.image(number)[None]) for number in numbers]


def test_all_trajectories_of_a_shifted_picture_are_the_shift() -> None:
    flow = torch.tensor([8.0, -4.0, -8.0, 4.0]).view(1, 4, 1, 1).expand(1, 4, 48, 64)
    t = torch.tensor([0.25])
    ways = trajectories(flow, t).flow
    expected = torch.tensor([-2.0, 1.0, 6.0, -3.0]).view(1, 1, 4, 1, 1).expand(1, 3, 4, 48, 64)
    assert torch.allclose(ways, expected, atol=1e-4)


def test_a_moving_square_takes_its_flow_along() -> None:
    """Only the square moves, by 16 pixels: the splatted flow is that of the square where it is at half time."""
    flow = torch.zeros(1, 4, 64, 96)
    flow[:, 0, 20:40, 20:40] = 16
    flow[:, 2, 20:40, 36:56] = -16
    at_ends, with_first, with_last = trajectories(flow, HALF).flow.unbind(1)
    inner = (0, slice(None), slice(22, 38), slice(30, 46))  # the square at half time, without its border
    moved = torch.tensor([-8.0, 0.0, 8.0, 0.0]).view(4, 1, 1)
    for ways in (with_first, with_last):  # the still background, hidden in one frame, hardly counts
        assert (ways[inner] - moved).abs().max() < 1
    assert (at_ends[inner] - moved).abs().max() == 8
    assert torch.equal(at_ends, flow_at(flow, HALF))


@pytest.mark.parametrize("time", [0.0, 1.0])
def test_the_given_frames_are_kept(time: float) -> None:
    first, last = frames(0, 4)
    image = average_warp(first, last, flow_estimates(first, last), torch.tensor([time]))
    assert torch.allclose(image, last if time else first, atol=1e-5)


def test_the_average_is_closer_to_the_truth_than_one_warp() -> None:
    first, truth, last = frames(0, 2, 4)
    flows = flow_estimates(first, last)
    averaged = average_warp(first, last, flows, HALF).clamp(-1, 1)
    assert psnr(averaged, truth) > psnr(weighted_half_warp(first, last, flows[:, 0], HALF).clamp(-1, 1), truth)


def test_the_flow_of_gradients_does_not_see_brightness() -> None:
    first, last = frames(0, 2)
    estimate = DISFlow(gradient=True)
    assert estimate.name == "dis_gradient"
    assert (estimate(first, last) - estimate(-first, -last)).abs().mean() < 0.05  # but for rounding
    flows = flow_estimates(first, last)
    assert torch.equal(flows[:, 0], flow_both_ways(first, last))
    assert torch.equal(flows[:, 1, :2], estimate(first, last))
