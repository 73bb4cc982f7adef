"""Lines and distances against hand values and SciPy."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from animegen.nn.lines import (
    REACH,
    distance,
    line_difference,
    line_mask,
    normalised_distance,
    soft_lines,
    soft_normalised_distance,
)


def drawing(column: int, size: int = 32) -> torch.Tensor:
    image = torch.ones(1, 3, size, size)
    image[..., column : column + 1] = -1
    return image


def test_a_dark_line_is_found_where_it_is() -> None:
    mask = line_mask(drawing(12))
    assert mask[0, 0, 16].nonzero().flatten().tolist() == [11, 12, 13]  # a Gaussian of 1 px widens it
    assert not line_mask(torch.ones(1, 3, 16, 16)).any()
    assert not line_mask(-drawing(12)).any() or not line_mask(-drawing(12))[..., 12].any()  # a light line is none


def test_distance_equals_scipy_and_counts_the_diagonal_without_lines() -> None:
    lines = torch.rand(3, 1, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.97
    lines[2] = False
    found = distance(lines)
    for n in range(2):
        assert torch.equal(found[n, 0], torch.from_numpy(distance_transform_edt(~lines[n, 0].numpy())).float())
    assert (found[2] == torch.tensor(math.hypot(20, 30))).all()


def test_normalised_distance_by_hand() -> None:
    lines = torch.zeros(1, 1, 8, 72, dtype=torch.bool)
    lines[..., 10] = True
    found = normalised_distance(lines)[0, 0, 4]
    assert found[10] == 0
    assert found[14].item() == pytest.approx(1 - math.exp(-4 * REACH / 72))


def test_soft_distance_is_near_the_exact_one() -> None:
    lines = torch.rand(1, 1, 60, 72, generator=torch.Generator().manual_seed(1)) > 0.995
    exact, soft = normalised_distance(lines), soft_normalised_distance(lines.float())
    near = exact < 0.9
    lengths = [-torch.log1p(-x[near]) * 72 / REACH for x in (exact, soft)]
    # The octagon's corners lie at 22.5 degrees: there a distance is 1 / cos(22.5 degrees) = 1.082 times too long.
    assert (lengths[1] >= lengths[0] - 1e-4).all()
    assert (lengths[1] <= 1.083 * lengths[0] + 1e-4).all()
    assert (soft - exact).abs().mean() < 0.03


def test_soft_lines_have_a_gradient_that_moves_them() -> None:
    image = drawing(12).requires_grad_()
    soft_normalised_distance(soft_lines(image)).mean().backward()
    assert image.grad is not None
    assert image.grad.abs().sum() > 0


def chamfer(output: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return line_difference(output, truth).chamfer


def test_nedt_by_hand() -> None:
    assert line_difference(drawing(12), drawing(12)).nedt.item() == 0
    # Lines of three columns, 11 to 13 and 16 to 18, in images of 32 pixels.
    near = [[max(abs(x - line) - 1, 0) for x in range(32)] for line in (12, 17)]
    expected = sum(abs(math.exp(-REACH / 32 * a) - math.exp(-REACH / 32 * b)) for a, b in zip(*near, strict=True)) / 32
    assert line_difference(drawing(12), drawing(17)).nedt.item() == pytest.approx(expected, rel=1e-5)
    # Far from all lines the normalised distance is 1.
    nothing = line_difference(torch.ones(1, 3, 32, 32), drawing(12)).nedt.item()
    assert nothing == pytest.approx(sum(math.exp(-REACH / 32 * a) for a in near[0]) / 32, rel=1e-4)
    assert nothing > expected / 2


def test_chamfer_by_hand() -> None:
    assert chamfer(drawing(12), drawing(12)).item() == 0
    # Lines of three columns, 11 to 13 and 16 to 18: the columns lie 5, 4 and 3 from the other line.
    shifted = chamfer(drawing(12), drawing(17)).item()
    expected = (5 + 4 + 3) / 32 / math.hypot(32, 32)
    assert shifted == pytest.approx(expected, rel=1e-5)
    assert chamfer(drawing(17), drawing(12)).item() == pytest.approx(shifted)
    # Without lines the other's lie a diagonal away: half of the sum, one direction only.
    assert chamfer(torch.ones(1, 3, 32, 32), drawing(12)).item() == pytest.approx(3 / 32 / 2)
