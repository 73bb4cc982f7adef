"""Scores of published tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animegen.metrics.image import ssim
from animegen.metrics.legacy import interpolation_error, ssim_atd_legacy


def test_interpolation_error_by_hand() -> None:
    truth = torch.zeros(1, 3, 4, 4) - 1
    output = truth.clone()
    output[:, 0, 0, 0] += 3 / 127.5
    output[:, 1, 0, 0] += 4 / 127.5
    assert interpolation_error(output, truth).item() == pytest.approx(5 / 16, abs=1e-5)


def test_legacy_ssim_equals_its_definition_and_flatters() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 12, 15, generator=generator) * 2 - 1
    output = (truth + 0.2 * torch.randn(truth.shape, generator=generator)).clamp(-1, 1)
    x, y = ((image.double().numpy() + 1) / 2 for image in (output, truth))
    values = []
    for channel in range(3):
        for row in range(6):
            for column in range(9):
                a, b = (z[0, channel, row : row + 7, column : column + 7].ravel() for z in (x, y))
                cov = np.cov(a, b)
                c1, c2 = 0.02**2, 0.06**2
                top = (2 * a.mean() * b.mean() + c1) * (2 * cov[0, 1] + c2)
                values.append(top / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)))
    assert ssim_atd_legacy(output, truth)[0].item() == pytest.approx(np.mean(values), abs=1e-6)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert (ssim_atd_legacy(blurred, truth) > ssim(blurred, truth)).all()
    assert torch.allclose(ssim_atd_legacy(truth, truth), torch.ones(2))
