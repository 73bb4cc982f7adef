"""Pyramids, census, lines, and the losses round arXiv 2312.01943, by hand and by slow twins."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from animegen.errors import AnimegenError
from animegen.losses import (
    NEDT,
    Census,
    DeepSupervision,
    FeatureSync,
    GuidedFeatureL1,
    Laplacian,
    LineChamfer,
    LineL1,
    Structure,
)
from animegen.losses.structure import motion_mask
from animegen.nn.features import FeatureExtractor


def picture(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def line(column: int, size: int = 36) -> torch.Tensor:
    image = torch.ones(1, 3, size, size)
    image[..., column] = -1
    return image


def test_laplacian_of_a_constant_is_its_last_level_alone() -> None:
    a = picture(0, 2, 3, 32, 32)
    # All bands of a constant are 0; what is left after four halvings counts 2^4 times.
    assert Laplacian(5)(a + 0.25, a).item() == pytest.approx(16 * 0.25, rel=1e-4)
    assert Laplacian(1)(a + 0.25, a).item() == pytest.approx(0.25, rel=1e-4)
    assert Laplacian(3)(a, a).item() == 0


def test_laplacian_bands_of_a_difference_by_hand() -> None:
    # A chequered difference of +-1 is gone after the binomial filter: the first band holds all of it.
    grid = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    diff = grid.expand(1, 3, 16, 16)
    found = Laplacian(2)(diff, torch.zeros_like(diff)).item()
    assert found == pytest.approx(1.0, abs=0.02)


def test_census_equals_its_definition_pixel_by_pixel() -> None:
    a, b = picture(1, 1, 3, 9, 8), picture(2, 1, 3, 9, 8)
    grey = [(x[0] * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0) * 127.5 for x in (a, b)]
    values = []
    for y in range(1, 8):
        for x in range(1, 7):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if dy or dx:
                        d = [g[y + dy, x + dx] - g[y, x] for g in grey]
                        s = [v / math.sqrt(0.81 + v**2) for v in d]
                        gap = (s[0] - s[1]) ** 2
                        values.append(float(gap / (0.1 + gap)))
    assert Census(3)(a, b).item() == pytest.approx(sum(values) / len(values), rel=1e-3)
    assert Census()(a, (a * 0.999)).item() < Census()(a, b).item()


def test_census_does_not_mind_brightness() -> None:
    a = picture(3, 1, 3, 12, 12) * 0.5
    assert Census()(a + 0.3, a).item() == pytest.approx(0, abs=1e-6)


def test_deep_supervision_by_hand() -> None:
    truth = torch.zeros(1, 3, 8, 8)
    sides = [torch.full((1, 3, 8, 8), 1.0), torch.full((1, 3, 4, 4), 2.0), torch.full((1, 3, 2, 2), 4.0)]
    assert DeepSupervision(0.5)(sides, truth).item() == pytest.approx(1 + 0.5 * 2 + 0.25 * 4)


def test_line_losses_grow_with_the_distance_of_the_line_and_vanish_without_any() -> None:
    for loss in (NEDT(), LineChamfer()):
        near, far = (loss(line(18 + step), line(18)).item() for step in (2, 6))
        assert 0 < near < far
    assert NEDT()(line(18), line(18)).item() == 0
    # A pixel loss sees no difference between two places: two lines, wherever they are.
    assert LineL1()(line(24), line(12)).item() == pytest.approx(LineL1()(line(28), line(12)).item(), rel=1e-3)
    assert LineL1()(line(18), line(18)).item() == 0


def test_line_chamfer_by_hand() -> None:
    # Lines of three columns in an image of 36: the longer side over 36 is 1 px, so every distance counts as 1 at most.
    # Soft lines are all but 0 and 1 here. There: three columns, 6, 5 and 4 px off, clamped to 1, over 36 px.
    value = LineChamfer()(line(24), line(18)).item()
    there = 3 / 36 / 36
    back = 3 / 36 * (1 - math.exp(-5)) / 36
    assert value == pytest.approx(0.5 * (there + back), rel=0.1)


@pytest.mark.parametrize("loss", [NEDT(), LineChamfer(), LineL1(), Census(), Laplacian()])
def test_losses_have_finite_gradients(loss: torch.nn.Module) -> None:
    image = picture(5, 2, 3, 32, 32).requires_grad_()
    loss(image, picture(6, 2, 3, 32, 32)).backward()
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0


def test_structure_by_hand_without_a_border() -> None:
    mask, logits = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    # Weight 1 everywhere: entropy ln 2; both = 16 * 0.5, either = 16 * 1.5 - 8.
    assert Structure()(logits, mask).item() == pytest.approx(math.log(2) + 1 - 9 / 17)
    assert Structure()(torch.full_like(logits, 50.0), mask).item() == pytest.approx(0, abs=1e-5)


def test_structure_weighs_borders_as_its_definition_says() -> None:
    mask = torch.zeros(2, 1, 20, 20)
    mask[..., 10:] = 1
    logits = picture(8, 2, 1, 20, 20)
    near = F.avg_pool2d(mask, 15, 1, 7, count_include_pad=False)
    w, p = 1 + 5 * (near - mask).abs(), torch.sigmoid(logits)
    expected = []
    for n in range(2):
        bce = -(mask[n] * p[n].log() + (1 - mask[n]) * (1 - p[n]).log())
        inter, union = (w[n] * p[n] * mask[n]).sum(), (w[n] * (p[n] + mask[n])).sum()
        expected.append((w[n] * bce).sum() / w[n].sum() + 1 - (inter + 1) / (union - inter + 1))
    assert Structure()(logits, mask).item() == pytest.approx(float(sum(expected) / 2), rel=1e-5)


def test_feature_sync_by_hand_and_without_gradient_to_the_reference() -> None:
    mine = [torch.ones(1, 2, 2, 2, requires_grad=True), torch.full((1, 3, 1, 1), 3.0)]
    theirs = [torch.zeros(1, 2, 2, 2, requires_grad=True), torch.ones(1, 3, 1, 1)]
    loss = FeatureSync()(mine, theirs)
    assert loss.item() == pytest.approx((1 + 4) / 2)
    loss.backward()
    assert mine[0].grad is not None
    assert theirs[0].grad is None


def test_guided_weights_have_mean_one_and_stress_the_mask_and_its_border() -> None:
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 3:6, 3:6] = 1
    weights = GuidedFeatureL1(inside=1.0, border=4.0).weights(mask)[0, 0]
    assert weights.mean().item() == pytest.approx(1)
    # Middle 1 + 1; corner of the mask 1 + 1 + 4 * 5/9; outside 1: in these proportions.
    assert (weights[4, 4] / weights[0, 0]).item() == pytest.approx(2)
    assert (weights[3, 3] / weights[0, 0]).item() == pytest.approx(2 + 4 * 5 / 9)


def test_guided_features_without_a_mask_are_the_plain_distance() -> None:
    network = FeatureExtractor("squeezenet1_1", "random")
    a, b = picture(9, 1, 3, 32, 32).requires_grad_(), picture(10, 1, 3, 32, 32)
    loss = GuidedFeatureL1(["relu1"])(a, b, torch.zeros(1, 1, 32, 32), network)
    plain = (network(a, ["relu1"])["relu1"] - network(b, ["relu1"])["relu1"]).abs().mean()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    loss.backward()
    assert a.grad.abs().sum() > 0
    with pytest.raises(AnimegenError, match="set features="):
        GuidedFeatureL1()(a, b, torch.zeros(1, 1, 32, 32), None)


def test_motion_mask_is_where_frames_differ_and_a_little_round_it() -> None:
    first = torch.zeros(1, 3, 16, 16)
    last = first.clone()
    last[0, 1, 8, 8] = 0.2
    last[0, 1, 2, 2] = 0.05  # a fortieth of the range: noise
    mask = motion_mask(first, last)
    assert int(mask.sum()) == 49
    assert mask[0, 0, 5:12, 5:12].min() == 1
