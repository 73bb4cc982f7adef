"""The acceleration of the motion between two frames, from the frames before and after them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen.inference.classical import ClassicalInterpolator
from animegen.media.video.flow import flow_estimates
from animegen.metrics.image import psnr
from animegen.nn.inbetween.acceleration import Adjacent, acceleration
from animegen.nn.inbetween.trajectories import average_warp, trajectories

HALF = torch.tensor([0.5])
SIZE = (96, 160)


def everywhere(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1).expand(1, len(values), *SIZE)


def position(time: float) -> float:
    """Return where a picture is that moves by 4 pixels per interval at time 0, and is accelerated by 8."""
    return 4 * time + 4 * time**2


def flow_between(first: float, last: float) -> Tensor:
    way = position(last) - position(first)
    return everywhere(way, 0, -way, 0)


def picture(time: float) -> Tensor:
    """Return a picture (1,3,96,160) of spots, at :func:`position`, seen through a window that stays."""
    spots = torch.rand(1, 3, 10, 19, generator=torch.Generator().manual_seed(0)) * 2 - 1
    canvas = torch.nn.functional.interpolate(spots, scale_factor=11, mode="bicubic").clamp(-1, 1)
    left = 36 - round(position(time))
    return canvas[..., : SIZE[0], left : left + SIZE[1]]


@pytest.mark.parametrize("r", [0.5, 1.0, 2.0])
def test_three_positions_tell_the_acceleration(r: float) -> None:
    known = everywhere(0.5)
    before = Adjacent(everywhere(position(-r), 0), known, r)
    after = Adjacent(everywhere(position(1 + r) - position(1), 0), known, r)
    flow, sure = flow_between(0, 1), everywhere(1, 1)
    half = 4 * 4096 / 4097  # half of 8, since the confidence is .5
    assert torch.allclose(acceleration(flow, sure, before, after), everywhere(half, 0, half, 0))
    assert torch.allclose(acceleration(flow, sure, None, after), everywhere(0, 0, half, 0))
    assert torch.allclose(acceleration(flow, sure, before, None), everywhere(half, 0, 0, 0))


def test_small_accelerations_are_errors_of_the_flow() -> None:
    sure = everywhere(1, 1)
    for length, kept in ((0.5, 1 / 17), (1.0, 1 / 2), (2.0, 16 / 17)):
        before = Adjacent(everywhere(-4 + 0.6 * length, 0.8 * length), sure[:, :1], 1.0)
        found = acceleration(everywhere(4, 0, -4, 0), sure, before, None)
        assert torch.allclose(found, everywhere(0.6 * length * kept, 0.8 * length * kept, 0, 0), atol=1e-6)


@pytest.mark.parametrize(("t", "way"), [(0.5, 3.0), (0.25, 1.25), (0.0, 0.0), (1.0, 8.0)])
def test_all_trajectories_are_the_accelerated_motion(t: float, way: float) -> None:
    assert position(t) == way
    ways = trajectories(flow_between(0, 1), torch.tensor([t]), everywhere(8, 0, 8, 0)).flow
    expected = everywhere(-way, 0, 8 - way, 0)[:, None].expand_as(ways)
    assert torch.allclose(ways, expected, atol=1e-4)


def test_an_accelerated_picture_is_drawn_where_it_is() -> None:
    times = (-1.0, 0.0, 1.0, 2.0)
    before, first, last, after = (picture(time) for time in times)
    model = ClassicalInterpolator(flow=True)
    pairs = [model.encode_pair(*pair) for pair in ((before, first), (first, last), (last, after))]
    among = model.encode_among(pairs[1], (pairs[0], 1.0), (pairs[2], 1.0))
    assert among.accelerated is not None
    across, down = among.accelerated[0, :, :, 8:-8, 36:-36].unflatten(1, (2, 2)).unbind(2)  # seen in all four frames
    assert (across - 8).abs().mean() < 1
    assert down.abs().mean() < 1
    drawn, uniform = (model.synthesize(pair, HALF) for pair in (among, pairs[1]))
    inner = (..., slice(4, -4), slice(28, -28))
    assert psnr(drawn[inner], picture(0.5)[inner]) > psnr(uniform[inner], picture(0.5)[inner]) + 6


def test_without_neighbours_nothing_changes() -> None:
    first, last = picture(0), picture(1)
    model = ClassicalInterpolator(flow=True)
    pair = model.encode_pair(first, last)
    assert model.encode_among(pair, None, None) is pair
    plain = average_warp(first, last, flow_estimates(first, last), HALF).clamp(-1, 1)
    assert torch.equal(model.synthesize(pair, HALF), plain)
    fade = ClassicalInterpolator(flow=False)
    faded = fade.encode_pair(first, last)
    assert fade.encode_among(faded, (faded, 1.0), (faded, 1.0)) is faded


def test_a_neighbour_that_shows_something_else_hardly_counts() -> None:
    first, last = picture(0), picture(1)
    other = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = ClassicalInterpolator(flow=True)
    pair = model.encode_pair(first, last)
    beside = [(model.encode_pair(other, first), 1.0), (model.encode_pair(last, other), 1.0)]
    among = model.encode_among(pair, *beside)
    assert among.accelerated is not None
    sums = [torch.cat([b.flows[:, :, 2:], a.flows[:, :, :2]], 2) + pair.flows for (b, _), (a, _) in [beside]]
    assert among.accelerated.abs().mean() < 0.3 * sums[0].abs().mean()
