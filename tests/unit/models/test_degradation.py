"""Anime that is made to look like photos: each part by itself has the stated effect."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.nn.colour import LinearColourTransfer
from animegen.nn.degradation import PhotoDegradation, blurred, without_lines

OFF = {"ink": 1, "texture": 0.0, "hue": 0.0, "tint": 0.0, "shading": 0.0, "light": 0.0, "blur": 0.0, "grain": 0.0}


def colours() -> LinearColourTransfer:
    transfer = LinearColourTransfer()
    photo = torch.randn(4, 3, 32, 32).mul(0.2).clamp(-1, 1)
    transfer.observe(photo, photo * 0.5 + 0.3)
    return transfer


def degraded(anime: Tensor, **on: float) -> Tensor:
    return PhotoDegradation(**{**OFF, **on})(anime, colours())  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [1.0, 0.25, 0.0])
def test_without_any_strength_only_the_colours_go_back(share: float) -> None:
    anime = torch.full((2, 3, 16, 16), 0.3) + 0.1 * torch.rand(2, 3, 16, 16)
    # The set's map is x -> x / 2 + .3, so going back is (x - .3) * 2.
    wanted = torch.lerp(anime, (anime - 0.3) * 2, share)
    torch.testing.assert_close(degraded(anime, recolour=share), wanted, atol=1e-3, rtol=1e-3)


def test_lines_are_closed_by_their_width() -> None:
    anime = torch.rand(1, 3, 20, 24) * 0.01 + 0.5
    flat = anime.clone()
    anime[..., 10] = -0.9  # one pixel wide
    anime[:, :, 4:7] = -0.9  # three
    closed = without_lines(anime, 3)
    assert closed[0, :, 12:, 10].min() > 0.4
    assert closed[0, :, 5, 2].max() < -0.8
    assert without_lines(anime, 5).min() > 0.4
    assert torch.equal(without_lines(anime, 1), anime)
    slow = -F.max_pool2d(-F.max_pool2d(flat, 5, 1, 2), 5, 1, 2)
    assert torch.equal(without_lines(flat, 5), slow)


def test_some_images_keep_their_lines() -> None:
    torch.manual_seed(0)
    anime = torch.full((64, 3, 8, 8), 0.5)
    anime[..., 4] = -0.5
    kept = degraded(anime, recolour=0.0, ink=3, kept_ink=0.25)[..., 4].mean((1, 2)) < 0
    assert 8 <= kept.sum() <= 24  # 16 of 64 expected


def test_grain_has_the_stated_strength() -> None:
    result = degraded(torch.full((1, 3, 128, 128), 0.3), grain=0.05)
    assert abs(result.std().item() / 2 - 0.05) < 0.002


def test_texture_tint_and_shading_belong_to_colours() -> None:
    """Two flat areas: each gets a roughness and a tint of its own; light shows at their border alone."""
    anime = torch.full((8, 3, 32, 64), 0.3)
    anime[..., 32:] = torch.tensor([0.5, 0.1, 0.2])[:, None, None]
    left, right = (slice(0, 31), slice(33, 64))
    rough = degraded(anime, texture=0.5)
    spreads = torch.stack([rough[..., part].std((1, 2, 3)) for part in (left, right)])
    assert (spreads[0] - spreads[1]).abs().max() > 0.02
    tinted = degraded(anime, tint=0.3)
    assert tinted[..., left].std((2, 3)).max() < 1e-5
    assert (tinted - degraded(anime)).abs().amax((1, 2, 3)).min() > 0.001
    lit = (degraded(anime, shading=0.5) - degraded(anime)).abs().mean((0, 1, 2))
    assert lit[:20].max() < 1e-5
    assert lit[28:36].max() > 0.005


def test_light_scales_the_whole_image() -> None:
    anime = torch.rand(4, 3, 16, 16) * 0.2 + 0.3
    before, after = (degraded(anime) + 1) / 2, (degraded(anime, light=0.05) + 1) / 2
    factor = after / before
    assert factor.std((2, 3)).max() < 1e-4
    assert (factor.mean((2, 3)) - 1).abs().max() > 0.01


def test_blur_is_binomial() -> None:
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[..., 2, 2] = 16
    assert blurred(impulse)[0, 0, 1:4, 1:4].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_range_shape_and_repeatability() -> None:
    degrade, transfer = PhotoDegradation(), colours()
    anime = torch.rand(3, 3, 24, 40) * 2 - 1
    torch.manual_seed(5)
    first = degrade(anime, transfer)
    torch.manual_seed(5)
    assert torch.equal(first, degrade(anime, transfer))
    assert first.shape == anime.shape
    assert first.abs().max() <= 1


def test_detail_is_borrowed_from_photos_and_edges_are_not() -> None:
    anime = torch.full((32, 3, 16, 16), 0.2)
    photos = torch.full((4, 3, 16, 16), -0.3)
    assert torch.equal(photos - blurred(photos, times=8), torch.zeros_like(photos))
    degrade = PhotoDegradation(**{**OFF, "recolour": 0.0, "borrowed": 2.0})  # type: ignore[arg-type]
    torch.testing.assert_close(degrade(anime, colours(), photos=photos), anime)
    torch.testing.assert_close(degrade(anime, colours()), anime)
    # One photo with a fine pattern: what is added is that pattern, at most twice.
    fine = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    added = degrade(anime, colours(), photos=fine) - anime
    detail = fine - blurred(fine, times=8)
    share = (added * detail).sum((1, 2, 3)) / detail.square().sum()
    torch.testing.assert_close(added, share.view(-1, 1, 1, 1) * detail)
    assert 0 <= share.min() < 0.5
    assert 1.5 < share.max() <= 2
    # And one with a hard edge: cut to a tenth of the range, so to .2 of [-1, 1], before it is doubled at most.
    hard = torch.full((1, 3, 16, 16), -1.0)
    hard[..., 8:] = 1.0
    edge = degrade(anime, colours(), photos=hard) - anime
    assert 0.3 < edge.abs().max() <= 0.4 + 1e-6
