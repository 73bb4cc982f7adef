"""Patches: the right pixels, each centre once, inside the mask, and the same on every machine."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from animegen.data.keyframes.patches import Centres, HardPlaces, PatchBank, WholeImages, erode, normal_noise
from animegen.errors import AnimegenError


def test_patches_are_the_pixels_round_their_centres() -> None:
    pictures = torch.randint(256, (2, 4, 10, 14), dtype=torch.uint8)
    bank = PatchBank(pictures, patch=6, context=1)
    padded = F.pad(pictures.float(), (4, 4, 4, 4), mode="reflect").to(torch.uint8)
    places = [(0, 0, 0), (1, 9, 13), (1, 4, 7)]
    patches = bank.cut(*torch.tensor(places).T)
    assert patches.shape == (3, 4, 8, 8)
    for patch, (n, y, x) in zip(patches, places, strict=True):
        assert torch.equal(patch, padded[n, :, y : y + 8, x : x + 8])
    assert torch.equal(patches[2], pictures[1, :, 0:8, 3:11]), "rows 4 - 3 - 1 to 4 + 3 + 1"


def test_patches_too_large_for_the_frame_are_refused() -> None:
    with pytest.raises(
        AnimegenError, match="Patches of 20 pixels with 0 pixels of context do not fit into frames of 12x10"
    ):
        PatchBank(torch.zeros(1, 3, 10, 12), patch=20)


def test_whole_images_are_cut_to_multiples_of_4() -> None:
    pictures = torch.randint(256, (2, 3, 10, 13), dtype=torch.uint8)
    cut = WholeImages(pictures).cut(torch.tensor([1]), torch.tensor([3]), torch.tensor([2]))
    assert torch.equal(cut, pictures[1:, :, :8, :12])


def test_erosion_keeps_what_lies_3_pixels_inside() -> None:
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, 4:14, 5:16] = True
    masks[1] = True
    kept = erode(masks)
    expected = torch.zeros(20, 20, dtype=torch.bool)
    expected[7:11, 8:13] = True
    assert torch.equal(kept[0], expected)
    assert kept[1].all(), "a mask that covers everything loses nothing"


def test_every_centre_is_taken_once_per_round_and_keys_take_turns() -> None:
    masks = torch.zeros(2, 12, 12, dtype=torch.bool)
    masks[0, :9, :10] = True
    masks[1] = True
    valid = erode(masks)
    centres = Centres(masks, seed=3)
    sizes = [int(v.sum()) for v in valid]
    numbers = range(2 * sizes[0])
    picture, row, column = centres.split(centres(numbers))
    assert picture.tolist() == [n % 2 for n in numbers]
    assert valid[picture, row, column].all(), "never outside of the eroded mask"
    first = (row * 12 + column)[picture == 0]
    assert len(first.unique()) == sizes[0], "each centre of the first key exactly once"
    whole = Centres(masks, seed=3, balance="by_area")
    assert len(whole(range(sum(sizes))).unique()) == sum(sizes) == len(whole)


def test_a_sample_is_a_function_of_its_number_and_the_seed() -> None:
    masks = torch.ones(2, 16, 16, dtype=torch.bool)
    numbers = list(range(600))
    straight = Centres(masks, seed=1)(numbers)
    resumed = Centres(masks, seed=1)
    assert torch.equal(straight[400:], resumed(numbers[400:])), "order of asking does not matter"
    assert torch.equal(straight[:40], resumed(numbers[:40]))
    assert not torch.equal(straight, Centres(masks, seed=2)(numbers))
    picture, _, _ = resumed.split(resumed.elsewhere(numbers))
    assert picture.tolist() == [n % 2 for n in numbers], "the discriminator's patch is of the same key frame"
    assert (resumed.elsewhere(numbers) != straight).float().mean() > 0.9


def test_a_mask_without_room_and_an_unknown_balance_are_reported() -> None:
    masks = torch.zeros(1, 16, 16, dtype=torch.bool)
    masks[0, :5, :5] = True
    masks[0, 0, 0] = False
    with pytest.raises(AnimegenError, match="leaves no position for a patch"):
        Centres(masks)
    with pytest.raises(AnimegenError, match=r"data\.balance=area is unknown"):
        Centres(~masks, balance="area")


def test_hard_places_are_drawn_in_proportion_to_error_and_size() -> None:
    hard = HardPlaces(Centres(torch.ones(1, 16, 16, dtype=torch.bool), seed=0), cell=8)
    assert len(hard.error) == 4
    for _ in range(200):
        hard.observe(torch.tensor([0, 255]), torch.tensor([3.0, 0.0]))
    assert hard.error.tolist() == pytest.approx([3, 1, 1, 0], abs=1e-6)
    places = hard(range(4000))
    row, column = places // 16, places % 16
    share = torch.bincount(row // 8 * 2 + column // 8, minlength=4) / 4000
    assert share.tolist() == pytest.approx([0.6, 0.2, 0.2, 0], abs=0.03)
    assert torch.equal(hard([7, 8]), hard(range(9))[7:])


def test_noise_is_normal_and_repeatable() -> None:
    noise = normal_noise((6, 3, 32, 32), torch.arange(6), seed=1)
    assert noise.mean().abs() < 0.02
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert noise.abs().max() < 6
    assert torch.equal(noise[4:], normal_noise((2, 3, 32, 32), torch.tensor([4, 5]), seed=1))
