"""Augmentation: against a slow loop, independent of the batch, alike where it must be."""

from __future__ import annotations

import colorsys

import pytest
import torch

from animegen.data.augment import Augment, take
from animegen.data.sampler import counter_hash
from animegen.errors import AnimegenError
from animegen.media.images import to_float


def batch(numbers: list[int], side: int = 24, **more: torch.Tensor) -> dict[str, torch.Tensor]:
    """Images that depend on the sample number, each pixel unlike its neighbours."""

    def picture(number: int, channel: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(10 * number + channel)
        return torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)

    images = {key: torch.stack([picture(n, c) for n in numbers]) for c, key in enumerate(("photo", "anime"))}
    return {**images, **more, "sample": torch.tensor(numbers)}


def slow(images: torch.Tensor, numbers: list[int], size: int, seed: int, key: str) -> torch.Tensor:
    """Crop and flip one sample after the other with Python's integers."""
    out = []
    for image, number in zip(images, numbers, strict=True):
        top, left, mirror = ((counter_hash(seed, "window", key, number, k) % 2**64) / 2**64 for k in range(3))
        y, x = int(top * (image.shape[-2] - size + 1)), int(left * (image.shape[-1] - size + 1))
        crop = image[..., y : y + size, x : x + size]
        out.append(crop.flip(-1) if mirror < 0.5 else crop)
    return to_float(torch.stack(out))


def test_equals_the_slow_loop() -> None:
    numbers = [0, 3, 17, 2**33, 5, 6, 7, 8]
    data = batch(numbers)
    out = Augment(16, seed=4)(data)
    for key in ("photo", "anime"):
        assert torch.equal(out[key], slow(data[key], numbers, 16, 4, key))
    assert torch.equal(out["sample"], data["sample"])
    assert data["photo"].dtype == torch.uint8  # the input is left alone


def test_composition_of_the_batch_does_not_matter() -> None:
    augment = Augment(16, jitter=0.3, seed=1)
    whole = augment(batch([4, 9, 2, 7]))
    for place, number in enumerate([4, 9, 2, 7]):
        alone = augment(batch([number]))
        for key in ("photo", "anime"):
            assert torch.equal(whole[key][place], alone[key][0])


def test_aligned_keys_share_their_window_and_others_do_not() -> None:
    data = batch(list(range(32)))
    data["anime"] = data["photo"].clone()
    together = Augment(16)(data, aligned=[["photo", "anime"]])
    assert torch.equal(together["photo"], together["anime"])
    apart = Augment(16)(data, aligned=[["photo"], ["anime"]])
    equal = [(a == b).all().item() for a, b in zip(apart["photo"], apart["anime"], strict=True)]
    assert sum(equal) < 4


def test_all_windows_occur_and_half_are_flipped() -> None:
    numbers = torch.arange(4000)
    columns = torch.arange(8, dtype=torch.uint8).expand(4000, 3, 8, 8).contiguous()
    out = ((Augment(6)({"photo": columns, "sample": numbers})["photo"] + 1) * 127.5).round().int()
    flipped = out[:, 0, 0, 0] > out[:, 0, 0, 1]
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.03)
    left = out[:, 0, 0].min(dim=1).values
    assert torch.bincount(left, minlength=3).tolist() == pytest.approx([4000 / 3] * 3, rel=0.1)
    straight = Augment(6, flip=False)({"photo": columns, "sample": numbers})["photo"]
    assert (straight[:, 0, 0, 0] < straight[:, 0, 0, 1]).all()


def test_same_size_is_flipped_only() -> None:
    data = batch(list(range(16)), side=16)
    out = Augment(16)(data)["photo"]
    original = to_float(data["photo"])
    kinds = [
        "same" if torch.equal(a, b) else "flipped" if torch.equal(a, b.flip(-1)) else "other"
        for a, b in zip(out, original, strict=True)
    ]
    assert set(kinds) == {"same", "flipped"}


def test_frames_of_a_clip_are_augmented_alike() -> None:
    still = batch([3, 8])["photo"]
    clip = still[:, None].expand(-1, 5, -1, -1, -1).contiguous()
    out = Augment(16, jitter=0.2)({"photo": clip, "sample": torch.tensor([3, 8])})["photo"]
    assert out.shape == (2, 5, 3, 16, 16)
    alone = Augment(16, jitter=0.2)({"photo": still, "sample": torch.tensor([3, 8])})["photo"]
    assert torch.allclose(out, alone[:, None].expand_as(out), atol=1e-6)


def test_jitter_changes_brightness_and_saturation_of_the_photo_only() -> None:
    data = {"photo": torch.zeros(200, 3, 8, 8, dtype=torch.uint8), "sample": torch.arange(200)}
    data["photo"][:, 0], data["photo"][:, 1], data["photo"][:, 2] = 120, 90, 60
    data["anime"] = data["photo"].clone()
    out = Augment(8, jitter=0.25)(data)
    assert torch.equal(out["anime"], to_float(data["anime"]))
    red, green, blue = ((out["photo"][:, c, 0, 0] + 1) / 2 for c in range(3))
    brightness = (0.299 * red + 0.587 * green + 0.114 * blue) / ((0.299 * 120 + 0.587 * 90 + 0.114 * 60) / 255)
    saturation = (red - blue) / brightness / (60 / 255)
    for factor in (brightness, saturation):
        assert 0.75 - 1e-3 <= factor.min() < 0.77
        assert 1.23 < factor.max() <= 1.25 + 1e-3
        assert factor.mean().item() == pytest.approx(1, abs=0.04)
    assert torch.corrcoef(torch.stack([brightness, saturation]))[0, 1].abs() < 0.2
    hues = [colorsys.rgb_to_hsv(*rgb)[0] for rgb in zip(red.tolist(), green.tolist(), blue.tolist(), strict=True)]
    assert hues == pytest.approx([colorsys.rgb_to_hsv(120, 90, 60)[0]] * 200, abs=1e-4)


def test_jitter_stays_in_range() -> None:
    out = Augment(16, jitter=1.0)(batch(list(range(32))))["photo"]
    assert out.min() >= -1
    assert out.max() <= 1


def test_other_entries_pass_through() -> None:
    flow, weights = torch.randn(2, 2, 24, 24), torch.tensor([1, 2], dtype=torch.uint8)
    out = Augment(16)(batch([0, 1], flow=flow, weights=weights))
    assert out["flow"] is flow
    assert out["weights"] is weights


def test_take_is_indexing() -> None:
    images = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    rows, columns = torch.tensor([[0, 2], [3, 1]]), torch.tensor([[4, 0, 1], [2, 2, 3]])
    out = take(images, rows, columns)
    assert out.shape == (2, 3, 2, 3)
    for b in range(2):
        assert torch.equal(out[b], images[b][:, rows[b]][:, :, columns[b]])


def test_mistakes() -> None:
    with pytest.raises(AnimegenError, match="24x24 pixels, too few for crops of 32"):
        Augment(32)(batch([0]))
    with pytest.raises(AnimegenError, match="jitter from 0 to 1"):
        Augment(32, jitter=2)


@pytest.mark.cuda
def test_device_does_not_matter() -> None:
    data = batch([5, 1, 8])
    cpu = Augment(16, jitter=0.2)(data)
    cuda = Augment(16, jitter=0.2)({key: value.cuda() for key, value in data.items()})
    assert torch.equal(cpu["anime"], cuda["anime"].cpu())
    assert torch.allclose(cpu["photo"], cuda["photo"].cpu(), atol=1e-6)
