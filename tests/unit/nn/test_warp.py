"""Warping: exact for whole pixels, equal to a slow reference elsewhere, one sign."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from animegen.nn.warp import backward_warp, consistent, forward_splat, inside, resize_flow, uniform_motion


def constant(x: float, y: float, height: int = 5, width: int = 7) -> Tensor:
    return torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, height, width)


def impulse(row: int, column: int) -> Tensor:
    image = torch.zeros(1, 1, 5, 7)
    image[0, 0, row, column] = 1
    return image


def slow_warp(image: Tensor, flow: Tensor) -> Tensor:
    out = torch.zeros_like(image)
    _, _, height, width = image.shape
    for b in range(len(image)):
        for row in range(height):
            for column in range(width):
                x = min(max(column + float(flow[b, 0, row, column]), 0), width - 1)
                y = min(max(row + float(flow[b, 1, row, column]), 0), height - 1)
                for r in (math.floor(y), math.floor(y) + 1):
                    for c in (math.floor(x), math.floor(x) + 1):
                        share = (1 - abs(y - r)) * (1 - abs(x - c))
                        if share > 0:
                            out[b, :, row, column] += share * image[b, :, r, c]
    return out


def slow_splat(image: Tensor, flow: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = image.shape
    total, weight, cover = (torch.zeros(batch, n, height, width) for n in (channels, 1, 1))
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                x, y = column + float(flow[b, 0, row, column]), row + float(flow[b, 1, row, column])
                for r in (math.floor(y), math.floor(y) + 1):
                    for c in (math.floor(x), math.floor(x) + 1):
                        if 0 <= r < height and 0 <= c < width:
                            share = (1 - abs(y - r)) * (1 - abs(x - c))
                            mine = share * math.exp(importance[b, 0, row, column])
                            total[b, :, r, c] += mine * image[b, :, row, column]
                            weight[b, :, r, c] += mine
                            cover[b, :, r, c] += share
    return torch.where(weight > 0, total / weight, torch.zeros(())), cover


def test_a_whole_shift_moves_an_impulse_exactly() -> None:
    # What lies 2 to the right and 1 below is fetched: the impulse moves to the left and up.
    moved = backward_warp(impulse(3, 5), constant(2, 1))
    assert torch.equal(moved, impulse(2, 3))
    # Thrown, it moves with the flow.
    thrown, cover = forward_splat(impulse(2, 3), constant(2, 1))
    assert torch.equal(thrown, impulse(3, 5))
    assert torch.equal(cover[0, 0, 0], torch.zeros(7))
    assert torch.equal(cover[0, 0, 1:, 2:], torch.ones(4, 5))


def test_zero_flow_changes_nothing_at_any_size() -> None:
    for shape in ((1, 3, 1, 1), (2, 3, 1, 9), (1, 3, 64, 131)):
        image = torch.rand(shape)
        flow = torch.zeros(shape[0], 2, *shape[2:])
        torch.testing.assert_close(backward_warp(image, flow), image, atol=2e-5, rtol=0)
        assert torch.equal(forward_splat(image, flow)[0], image)
        assert inside(flow).all()


def test_the_coordinate_grid_shows_where_values_come_from() -> None:
    flow = torch.rand(1, 2, 5, 7) * 2 - 1
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    grid = torch.stack([columns, rows])[None]
    wanted = grid + flow
    warped = backward_warp(grid, flow)
    mask = inside(flow).expand_as(warped)
    torch.testing.assert_close(warped[mask], wanted[mask])


def test_warp_and_splat_equal_their_slow_references() -> None:
    image, flow = torch.rand(2, 3, 5, 7), torch.randn(2, 2, 5, 7) * 2
    torch.testing.assert_close(backward_warp(image, flow), slow_warp(image, flow), atol=1e-5, rtol=0)
    importance = torch.randn(2, 1, 5, 7)
    fast, cover = forward_splat(image, flow, importance)
    slow, slow_cover = slow_splat(image, flow, importance)
    torch.testing.assert_close(fast, slow, atol=1e-4, rtol=0)
    torch.testing.assert_close(cover, slow_cover, atol=1e-5, rtol=0)
    plain, _ = forward_splat(image, flow)
    torch.testing.assert_close(plain, slow_splat(image, flow, torch.zeros(2, 1, 5, 7))[0], atol=1e-4, rtol=0)


def test_where_two_pixels_meet_the_important_one_wins() -> None:
    image = torch.tensor([[[[1.0, 3.0, 0.0]]]])
    flow = torch.tensor([[[[1.0, 0.0, 5.0]], [[0.0, 0.0, 0.0]]]])  # the first lands on the second, the third outside
    average, cover = forward_splat(image, flow)
    assert average[0, 0, 0].tolist() == [0.0, 2.0, 0.0]
    assert cover[0, 0, 0].tolist() == [0.0, 2.0, 0.0]
    won, _ = forward_splat(image, flow, torch.tensor([[[[20.0, 0.0, 0.0]]]]))
    assert float(won[0, 0, 0, 1]) == pytest.approx(1.0, abs=1e-6)


def test_outside_of_the_image() -> None:
    image = torch.arange(7.0).expand(1, 1, 5, 7)
    assert backward_warp(image, constant(3, 0))[0, 0, 0].tolist() == [3, 4, 5, 6, 6, 6, 6]
    assert backward_warp(image, constant(3, 0), padding="zeros")[0, 0, 0].tolist() == [3, 4, 5, 6, 0, 0, 0]
    assert inside(constant(3, 0))[0, 0, 0].tolist() == [True] * 4 + [False] * 3
    assert inside(constant(0, -1))[0, 0, :, 0].tolist() == [False] + [True] * 4


def test_consistency_needs_the_way_back() -> None:
    there = constant(2, 0)
    assert torch.equal(consistent(there, -there), inside(there))
    assert not consistent(there, there).any()
    # |2 - 1.2|^2 = .64 > .01 (4 + 1.44) + .5 = .554; |2 - 1.3|^2 = .49 < .557
    assert not consistent(there, constant(-1.2, 0)).any()
    assert consistent(there, constant(-1.3, 0))[0, 0, 0, :5].all()


def test_gradients_reach_image_and_flow() -> None:
    image = torch.rand(1, 2, 5, 7, dtype=torch.float64, requires_grad=True)
    # Away from whole pixels, where bilinear interpolation has a kink.
    flow = (torch.randint(-1, 2, (1, 2, 5, 7)) + 0.3).double().requires_grad_()
    importance = torch.rand(1, 1, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, f: backward_warp(i, f), (image, flow))
    assert torch.autograd.gradcheck(lambda i, f, z: forward_splat(i, f, z)[0], (image, flow, importance))


def test_a_resized_flow_is_scaled() -> None:
    resized = resize_flow(constant(2, 3), 10, 21)
    assert resized.shape == (1, 2, 10, 21)
    torch.testing.assert_close(resized[0, 0], torch.full((10, 21), 6.0))
    torch.testing.assert_close(resized[0, 1], torch.full((10, 21), 6.0))


def test_shapes_must_belong_together() -> None:
    with pytest.raises(ValueError, match="does not match"):
        backward_warp(torch.zeros(1, 3, 5, 7), torch.zeros(1, 2, 7, 5))


def test_a_motion_divided_evenly_goes_the_same_way() -> None:
    flow = torch.tensor([-1.0, 0.5, 3.0, 1.5]).view(1, 1, 4, 1, 1).repeat(1, 2, 1, 2, 3)  # 4 to the right, 1 down
    found = uniform_motion(flow, torch.tensor([0.25, 0.5]).view(2, 1, 1, 1))
    assert found.shape == flow.shape
    assert found[0, 0, :, 1, 2].tolist() == [-1.0, -0.25, 3.0, 0.75]
    assert found[0, 1, :, 0, 0].tolist() == [-2.0, -0.5, 2.0, 0.5]
