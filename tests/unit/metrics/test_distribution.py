"""Distances between sets against their formulas, written out with SciPy and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from animegen.metrics.distribution import KID_SUBSETS, fid, kid, pool, project


def frechet(real: np.ndarray, fake: np.ndarray) -> float:
    a, b = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    shift = ((real.mean(0) - fake.mean(0)) ** 2).sum()
    return float(shift + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real))


def mmd(real: Tensor, fake: Tensor) -> float:
    """Unbiased squared MMD with the kernel of KID, pair by pair."""
    width = real.shape[1]

    def mean(a: Tensor, b: Tensor, distinct: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (distinct and i == j)]
        return float(np.mean([(float(a[i] @ b[j]) / width + 1) ** 3 for i, j in pairs]))

    return mean(real, real, True) + mean(fake, fake, True) - 2 * mean(real, fake, False)


def test_fid_equals_the_formula() -> None:
    real, fake = torch.randn(40, 6) @ torch.randn(6, 6), torch.randn(30, 6) * 0.5 + 1
    result = fid(real, fake)
    assert result is not None
    assert result.value == pytest.approx(frechet(real.double().numpy(), fake.double().numpy()), rel=1e-4)
    assert result.spread is None


def test_fid_of_a_shift_and_of_equal_sets() -> None:
    real = torch.randn(50, 5)
    shifted, same = fid(real, real + 2), fid(real, real)
    assert shifted is not None
    assert shifted.value == pytest.approx(5 * 4, rel=1e-4)
    assert same is not None
    assert 0 <= same.value < 1e-6


def test_fid_is_not_given_for_too_few_images() -> None:
    assert fid(torch.randn(6, 6), torch.randn(50, 6)) is None
    assert fid(torch.randn(50, 6), torch.randn(6, 6)) is None
    assert fid(torch.randn(7, 6), torch.randn(7, 6)) is not None
    assert fid(torch.randn(9, 500), torch.randn(9, 500), channels=8) is not None


def test_fid_of_wide_features_is_that_of_their_projection() -> None:
    real, fake = torch.randn(60, 100), torch.randn(60, 100) + 1
    result = fid(real, fake, channels=10)
    assert result is not None
    assert result.value == pytest.approx(frechet(project(real, 10).numpy(), project(fake, 10).numpy()), rel=1e-4)


def test_projection_is_orthonormal_and_fixed() -> None:
    basis = project(torch.eye(30), 12)
    torch.testing.assert_close(basis.T @ basis, torch.eye(12, dtype=torch.float64))
    assert torch.equal(basis, project(torch.eye(30), 12))
    assert torch.equal(project(torch.eye(8), 12), torch.eye(8, dtype=torch.float64))


def test_kid_equals_the_loop_over_all_pairs() -> None:
    real, fake = torch.randn(12, 7), torch.randn(12, 7) + 0.5
    result = kid(real, fake)
    assert result is not None
    assert result.value == pytest.approx(mmd(real, fake), rel=1e-5)
    assert result.spread is None  # a single subset


def test_kid_of_sets_of_different_size_averages_fixed_subsets() -> None:
    real, fake = torch.randn(30, 4), torch.randn(10, 4) + 1
    state = torch.get_rng_state()
    result = kid(real, fake)
    assert torch.equal(torch.get_rng_state(), state)
    assert result == kid(real, fake)
    assert result is not None
    assert result.spread is not None
    assert result.spread > 0
    # The mean over random subsets estimates the value of the whole sets.
    assert result.value == pytest.approx(mmd(real, fake), abs=4 * result.spread / KID_SUBSETS**0.5)
    assert kid(real, fake[:1]) is None


def test_pool_takes_the_mean_and_scales_it() -> None:
    features = torch.zeros(2, 2, 2, 2)
    features[0, 0], features[0, 1] = torch.tensor([[2.0, 4], [2, 4]]), 4  # means 3 and 4, length 5
    features[1, 1] = 0.1
    root = 2**0.5
    torch.testing.assert_close(pool(features), torch.tensor([[0.6 * root, 0.8 * root], [0, root]]))
    assert pool(torch.randn(3, 64, 4, 4)).square().mean(1).tolist() == pytest.approx([1, 1, 1])
