"""KL, its schedules and free bits, and commitment, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from animegen.errors import AnimegenError
from animegen.losses import KL, Commitment

IMAGE = torch.zeros(1, 3, 8, 8)  # 192 values


def posterior(mean: float, variance: float, channels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (3, channels, 2, 2)
    return torch.full(shape, mean), torch.full(shape, math.log(variance))


def test_kl_by_hand() -> None:
    # 0.5 (1 + 2 - 1 - ln 2) = 0.6534 nats for each of 2 channels at 4 places, over 192 values.
    expected = 0.5 * (2 - math.log(2)) * 2 * 4 / 192
    assert KL()(*posterior(1.0, 2.0), IMAGE).item() == pytest.approx(expected)
    assert KL()(*posterior(0.0, 1.0), IMAGE).item() == 0


def test_free_bits_are_a_floor_per_channel_without_gradient() -> None:
    mean, logvar = posterior(0.0, 1.0)
    mean[:, 1] = 1.0  # 0.5 nats in the second channel only
    mean.requires_grad_()
    loss = KL(free_bits=0.2)(mean, logvar, IMAGE)
    assert loss.item() == pytest.approx((0.2 + 0.5) * 4 / 192)
    loss.backward()
    assert mean.grad[:, 0].abs().max() == 0
    assert mean.grad[:, 1].abs().max() > 0


def test_cyclical_schedule() -> None:
    loss = KL(schedule="cyclical", steps=400, cycles=4)
    found = [loss.strength(step) for step in (0, 25, 50, 99, 100, 125, 400, 1000)]
    assert found == [0, 0.5, 1, 1, 0, 0.5, 1, 1]
    full = KL()(*posterior(1.0, 1.0), IMAGE).item()
    assert loss(*posterior(1.0, 1.0), IMAGE, step=25).item() == pytest.approx(full / 2)


def test_capacity_schedule() -> None:
    loss = KL(schedule="capacity", steps=100, capacity=0.05)
    nats = KL()(*posterior(1.0, 1.0), IMAGE).item()  # 0.5 * 2 * 4 / 192 = 0.0208
    assert loss(*posterior(1.0, 1.0), IMAGE, step=0).item() == pytest.approx(nats)
    assert loss(*posterior(1.0, 1.0), IMAGE, step=100).item() == pytest.approx(0.05 - nats)
    assert loss(*posterior(1.0, 1.0), IMAGE, step=500).item() == pytest.approx(0.05 - nats)


def test_commitment_pulls_vectors_and_on_demand_codes() -> None:
    encoded = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).requires_grad_()
    nearest = torch.tensor([0.0, 4.0]).view(1, 2, 1, 1).requires_grad_()
    loss = Commitment()(encoded, nearest)
    assert loss.item() == pytest.approx((1 + 4) / 2)
    loss.backward()
    assert encoded.grad.flatten().tolist() == [1, -2]
    assert nearest.grad is None
    both = Commitment(codebook=4.0)(encoded, nearest)
    assert both.item() == pytest.approx(2.5 * 5)
    both.backward()
    assert nearest.grad.flatten().tolist() == [-4, 8]


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="Did you mean 'cyclical'"):
        KL(schedule="cyclic")
    with pytest.raises(AnimegenError, match="steps >= 1"):
        KL(steps=0)
