"""Losses along time, by hand-made videos whose motion is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.losses import (
    FeatureConsistency,
    FeatureStatistics,
    FrameDifference,
    NormalisedFeatures,
    TemporalConsistency,
)

HEIGHT, WIDTH = 8, 16


def moving(frames: int = 4, step: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return a video (1,T,3,H,W) that moves right by whole pixels, its flow into the frame before, and the mask."""
    picture = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) - 0.5
    film = torch.stack([picture.roll(step * t, -1) for t in range(frames)])[None]
    flow = torch.zeros(1, frames - 1, 2, HEIGHT, WIDTH)
    flow[:, :, 0] = -step
    valid = torch.ones(1, frames - 1, 1, HEIGHT, WIDTH)
    valid[..., :step] = 0  # came in from the other side
    return film, flow, valid


def test_a_perfectly_warped_video_costs_nothing_and_flicker_does() -> None:
    film, flow, valid = moving()
    loss = TemporalConsistency(relaxed=False)
    assert loss(film, film, flow, valid) < 1e-6
    flicker = film.clone()
    flicker[:, 1] += 0.25
    # Two of three pairs change by .25.
    assert loss(flicker, film, flow, valid).item() == pytest.approx(0.25 * 2 / 3, rel=1e-4)
    squared = TemporalConsistency(power=2, relaxed=False)
    assert squared(flicker, film, flow, valid).item() == pytest.approx(0.25**2 * 2 / 3, rel=1e-4)


def test_the_relaxed_form_allows_for_the_brightness_of_the_input() -> None:
    film, flow, valid = moving()
    lighter = film.clone()
    lighter[:, 2:] += 0.25
    assert TemporalConsistency()(lighter, lighter, flow, valid) < 1e-5
    assert TemporalConsistency(relaxed=False)(lighter, lighter, flow, valid) > 0.05
    tinted = film.clone()
    tinted[:, 2:, 0] += 0.3  # red: luma changes by .299 of it
    wanted = (0.3 * (1 - 0.299) + 2 * 0.3 * 0.299) / 3 / 3  # over channels, and one of three pairs
    assert TemporalConsistency()(tinted, tinted, flow, valid).item() == pytest.approx(wanted, rel=1e-3)


def test_what_is_not_valid_or_leaves_the_image_does_not_count() -> None:
    film, flow, valid = moving()
    loss = TemporalConsistency(relaxed=False)
    spoilt = film.clone()
    spoilt[:, :, :, 2, 5] += torch.rand(1, 4, 3)
    hole = valid.clone()
    for t in range(3):
        hole[:, t, :, 2, 5] = hole[:, t, :, 2, 6] = 0  # where it is, and where it comes from
    assert loss(spoilt, film, flow, hole) < 1e-6
    assert loss(spoilt, film, flow, valid) > 1e-4
    assert loss(torch.rand_like(film), film, flow, torch.zeros_like(valid)) == 0
    assert loss(film, film, flow, torch.ones_like(valid)) < 1e-6  # the flow of the first column leads out
    assert loss(film[:, :1], film[:, :1], flow[:, :0], valid[:, :0]) == 0


def test_the_flow_is_not_taken_backwards() -> None:
    film, flow, valid = moving()
    assert TemporalConsistency(relaxed=False)(film, film, -flow, valid) > 0.1


def test_the_long_term_compares_with_the_first_frame() -> None:
    film, flow, valid = moving()
    steps = torch.arange(1, 4.0).view(1, 3, 1, 1, 1)
    far = flow * steps
    mask = torch.ones_like(valid)
    loss = TemporalConsistency(relaxed=False, long=True)
    assert loss(film, film, far, mask) < 1e-6
    drifting = film + 0.1 * torch.arange(4.0).view(1, 4, 1, 1, 1)
    wanted = (0.2 * (WIDTH - 2) + 0.3 * (WIDTH - 3)) / (2 * WIDTH - 5)  # by pixels that the flow keeps inside
    assert loss(drifting, film, far, mask).item() == pytest.approx(wanted, rel=1e-4)
    assert loss(film[:, :2], film[:, :2], far[:, :1], mask[:, :1]) == 0


def test_the_past_gets_no_gradient_unless_asked() -> None:
    film, flow, valid = moving(2)
    for detach in (True, False):
        drawn = (film + 0.1 * torch.rand_like(film)).requires_grad_()
        TemporalConsistency(relaxed=False, detach=detach)(drawn, film, flow, valid).backward()
        assert drawn.grad is not None
        assert bool(drawn.grad[:, 0].abs().max() > 0) is not detach
        assert drawn.grad[:, 1].abs().max() > 0
    with pytest.raises(AnimegenError, match="not 3"):
        TemporalConsistency(power=3)


def test_feature_maps_at_half_the_size_follow_the_halved_flow() -> None:
    film, flow, valid = moving(3, step=2)
    maps = torch.nn.functional.avg_pool2d(film.flatten(0, 1), 2).unflatten(0, (1, 3))
    loss = FeatureConsistency()
    assert loss(maps, flow, valid) < 1e-6
    assert loss(maps * torch.tensor([1.0, 3.0, 0.5]).view(1, 3, 1, 1, 1), flow, valid) < 1e-4  # normalised
    assert loss(torch.rand_like(maps), flow, valid) > 0.1
    assert loss(maps, -flow, valid) > 0.1
    assert loss(maps[:, :1], flow[:, :0], valid[:, :0]) == 0


def test_frame_differences() -> None:
    photo = torch.zeros(1, 3, 3, 4, 4)
    clip = photo + torch.tensor([0.0, 0.5, 0.2]).view(1, 3, 1, 1, 1)
    assert FrameDifference()(clip, photo).item() == pytest.approx((0.5 + 0.3) / 2)
    assert FrameDifference()(photo + 0.4, photo) == 0
    assert FrameDifference()(clip[:, :1], photo[:, :1]) == 0


def test_feature_statistics_by_hand() -> None:
    image = torch.tensor([[1.0, 3.0], [1.0, 3.0]]).expand(1, 2, 2, 2)  # mean 2, deviation 1
    still = torch.full((1, 2, 3, 5), 5.0)  # mean 5, deviation 0
    loss = FeatureStatistics(layers=["a", "b"])
    assert loss({"a": image, "b": image}, {"a": still, "b": image}).item() == pytest.approx(9 + 1)
    flat = torch.ones(1, 2, 4, 4, requires_grad=True)
    FeatureStatistics(layers=["a"])({"a": flat}, {"a": image}).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()


def test_normalised_features_ignore_contrast() -> None:
    maps = torch.rand(1, 3, 8, 8)
    loss = NormalisedFeatures(layers=["a"])
    assert loss({"a": maps * 4 - 1}, {"a": maps}) < 1e-6
    assert loss({"a": -maps}, {"a": maps}).item() == pytest.approx(4, rel=1e-2)
