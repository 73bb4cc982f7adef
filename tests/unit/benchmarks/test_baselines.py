"""Baselines: the colour transfer moves moments, the table is the least-squares optimum and reads as SciPy does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator
from torch import Tensor

from animegen.benchmarks.baselines import (
    BestLookupTable,
    Identity,
    LinearColourTransfer,
    _roughness,
    _trilinear_weights,
    sample_colours,
)
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.metrics.image import psnr
from animegen.toonworld import draw


class Pictures:
    """Images in memory as an image source."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def name(self, index: int) -> str:
        return f"picture-{index}"


def random_pictures(count: int = 4, low: int = 0, high: int = 256, size: int = 32) -> Pictures:
    return Pictures(torch.randint(low, high, (count, 3, size, size), dtype=torch.uint8))


def moments(images: Tensor) -> tuple[Tensor, Tensor]:
    colours = images.transpose(0, 1).flatten(1).double()
    return colours.mean(1), torch.cov(colours, correction=0)


def test_identity_returns_the_photo() -> None:
    photo = torch.rand(2, 3, 8, 8)
    assert Identity().fit(random_pictures(), random_pictures())(photo) is photo


def test_colour_transfer_gives_the_photos_the_moments_of_the_animes() -> None:
    photos, animes = random_pictures(low=40, high=120), random_pictures(low=100, high=200)
    animes.images[:, 1] = animes.images[:, 1] // 2 + animes.images[:, 0] // 2  # correlated channels
    transfer = LinearColourTransfer().fit(photos, animes)
    got, wanted = moments(transfer(to_float(photos.images))), moments(to_float(animes.images))
    torch.testing.assert_close(got[0], wanted[0], atol=1e-3, rtol=0)
    torch.testing.assert_close(got[1], wanted[1], atol=1e-3, rtol=0)
    assert not transfer.privileged


def test_table_recovers_a_map_that_a_table_can_express() -> None:
    nodes = torch.rand(3, 3, 3, 3) * 1.6 - 0.8  # [red, green, blue] -> colour
    read = RegularGridInterpolator([np.linspace(-1, 1, 3)] * 3, nodes.numpy())
    photos = random_pictures(8)
    colours = to_float(photos.images).permute(0, 2, 3, 1).numpy()
    drawn = torch.from_numpy(read(colours)).permute(0, 3, 1, 2)
    animes = Pictures(((drawn + 1) * 127.5).round().to(torch.uint8))
    table = BestLookupTable(size=3, smoothing=1e-9).fit(photos, animes)
    assert table.table is not None
    # The stored table is (channel, blue, green, red).
    torch.testing.assert_close(table.table.permute(3, 2, 1, 0), nodes, atol=5e-3, rtol=0)
    torch.testing.assert_close(table(to_float(photos.images)), drawn.float(), atol=0.01, rtol=0)


def test_table_is_the_least_squares_optimum() -> None:
    photos, animes = random_pictures(2), random_pictures(2)
    fitted = BestLookupTable(size=4, smoothing=0.1).fit(photos, animes)
    assert fitted.table is not None
    source, target = sample_colours([photos, animes], 200_000)
    weights = _trilinear_weights((source.double().numpy() + 1) / 2, 4).toarray()
    second = np.array([[1.0, -2, 1, 0], [0, 1, -2, 1]])
    same = np.eye(4)
    rough = np.concatenate(
        [
            np.kron(np.kron(second, same), same),
            np.kron(np.kron(same, second), same),
            np.kron(np.kron(same, same), second),
        ]
    )
    # An ordinary dense least-squares problem: pixel rows of weight 1 / N, roughness rows of weight smoothing / nodes.
    system = np.concatenate([weights / len(source) ** 0.5, rough * (0.1 / 64) ** 0.5])
    right = np.concatenate([target.double().numpy() / len(source) ** 0.5, np.zeros((len(rough), 3))])
    nodes = np.linalg.lstsq(system, right, rcond=None)[0].reshape(4, 4, 4, 3)
    np.testing.assert_allclose(fitted.table.permute(3, 2, 1, 0).numpy(), nodes, atol=1e-5)


def test_lookup_equals_the_weights_and_scipy() -> None:
    table = BestLookupTable(size=5)
    table.table = torch.rand(3, 5, 5, 5) * 2 - 1
    photo = torch.rand(2, 3, 9, 7) * 2 - 1
    nodes = table.table.permute(3, 2, 1, 0).numpy()
    colours = photo.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    expected = RegularGridInterpolator([np.linspace(-1, 1, 5)] * 3, nodes)(colours)
    np.testing.assert_allclose(table(photo).permute(0, 2, 3, 1).reshape(-1, 3).numpy(), expected, atol=1e-5)
    by_weights = _trilinear_weights((colours + 1) / 2, 5) @ nodes.reshape(-1, 3)
    np.testing.assert_allclose(by_weights, expected, atol=1e-6)
    assert table(photo * 2).isfinite().all()  # colours out of range are clipped


def test_smoothing_extends_a_linear_map_into_empty_cells() -> None:
    photos = random_pictures(2, 64, 128)
    animes = Pictures(255 - photos.images)
    table = BestLookupTable().fit(photos, animes)
    white = torch.ones(1, 3, 1, 1)
    torch.testing.assert_close(table(white), -white, atol=0.1, rtol=0)


def test_table_of_a_single_colour_is_regular() -> None:
    photos, animes = (Pictures(torch.full((2, 3, 8, 8), level, dtype=torch.uint8)) for level in (90, 120))
    table = BestLookupTable().fit(photos, animes)
    torch.testing.assert_close(table(to_float(photos.images)), to_float(animes.images), atol=1e-3, rtol=0)
    assert table.table is not None
    assert table.table.isfinite().all()


def test_roughness_is_the_sum_of_squared_second_differences() -> None:
    axis = np.arange(5.0)
    linear = (axis[:, None, None] + 2 * axis[None, :, None] - axis).ravel()
    assert abs(linear @ (_roughness(5) @ linear)) < 1e-9
    square = np.broadcast_to(axis[:, None, None] ** 2, (5, 5, 5)).ravel()
    assert square @ (_roughness(5) @ square) == pytest.approx(3 * 25 * 2**2)


def test_sampling_is_paired_deterministic_and_takes_all_of_few() -> None:
    photos = random_pictures(3)
    negatives = Pictures(255 - photos.images)
    first, second = sample_colours([photos, negatives], 300)
    assert first.shape == (300, 3)
    torch.testing.assert_close(first, -second)
    assert torch.equal(first, sample_colours([photos], 300)[0])
    (everything,) = sample_colours([photos], 10**6)
    assert len(everything) == 3 * 32 * 32


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="do not match"):
        BestLookupTable().fit(random_pictures(2), random_pictures(3))
    with pytest.raises(AnimegenError, match="differ in size"):
        BestLookupTable().fit(random_pictures(size=16), random_pictures(size=24))
    with pytest.raises(AnimegenError, match="empty"):
        LinearColourTransfer().fit(random_pictures(0), random_pictures())
    with pytest.raises(AnimegenError, match="at least 3 nodes"):
        BestLookupTable(size=2)


def test_scores_on_toonworld() -> None:
    train = draw(("photo", "meadow"), "train", scenes=8, size=96)
    test = draw(("photo", "meadow"), "test", scenes=8, size=96)
    photos, animes = (Pictures(torch.from_numpy(train[look])) for look in ("photo", "meadow"))
    photo, truth = (to_float(torch.from_numpy(test[look])) for look in ("photo", "meadow"))
    table = BestLookupTable().fit(photos, animes)
    transfer = LinearColourTransfer().fit(photos, animes)
    scores = [psnr(method(photo), truth).mean().item() for method in (Identity(), transfer, table)]
    # 64 scenes x 2 frames of 128 px give 12.8, 16.4 and 19.0.
    assert scores == pytest.approx([12.7, 16.8, 19.4], abs=0.3)
