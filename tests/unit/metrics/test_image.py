"""Measures of images against hand values and independent references."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.metrics import image as measures


def noise(*shape: int, scale: float = 1.0) -> Tensor:
    return (torch.rand(*shape) * 2 - 1) * scale


def test_psnr_hand_values_and_ceiling() -> None:
    truth = torch.zeros(3, 3, 8, 8)
    output = truth.clone()
    output[0] += 0.2  # MSE .04 in a range of 2: 10 log10(4 / .04) = 20
    output[1] += 2.0  # the whole range: 0 dB
    assert measures.psnr(output, truth).tolist() == pytest.approx([20.0, 0.0, measures.PSNR_CEILING], abs=1e-4)


def test_psnr_equals_that_of_8_bit_levels() -> None:
    a, b = (torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8) for _ in range(2))
    expected = peak_signal_noise_ratio(a.float(), b.float(), data_range=255.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(measures.psnr(to_float(a), to_float(b)), expected)


def test_ssim_equals_the_formula_of_wang() -> None:
    truth = noise(2, 3, 40, 36)
    output = (truth + noise(2, 3, 40, 36, scale=0.5)).clamp(-1, 1)

    def blur(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, truncate=3.5, mode="mirror")  # radius 5: the window of 11

    expected = []
    for a, b in zip((output.double().numpy() + 1) / 2, (truth.double().numpy() + 1) / 2, strict=True):
        channels = []
        for x, y in zip(a, b, strict=True):
            mx, my = blur(x), blur(y)
            vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
            c1, c2 = 0.01**2, 0.03**2
            local = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
            channels.append(local.mean())
        expected.append(np.mean(channels))
    assert measures.ssim(output, truth).tolist() == pytest.approx(expected, abs=1e-4)
    assert measures.ssim(truth, truth).tolist() == pytest.approx([1, 1])
    with pytest.raises(AnimegenError, match="11x11"):
        measures.ssim(noise(1, 3, 10, 20), noise(1, 3, 10, 20))


def stripes(*columns: int) -> Tensor:
    """A black image with vertical steps at the columns."""
    level = torch.zeros(24)
    for column in columns:
        level[column:] += 1
    return (level % 2 * 2 - 1).expand(1, 3, 24, 24)


def test_edge_f_score_of_shifted_and_missing_edges() -> None:
    truth = stripes(8)
    assert measures.edge_f_score(truth, truth).item() == 1
    assert measures.edge_f_score(stripes(9), truth).item() == 1  # within the tolerance
    assert measures.edge_f_score(stripes(10), truth).item() == 0
    assert measures.edge_f_score(stripes(10), truth, tolerance=2).item() == 1
    # One of two equally long edges: precision 1, recall 1/2, F = 2/3.
    assert measures.edge_f_score(stripes(6), stripes(6, 16)).item() == pytest.approx(2 / 3)
    assert measures.edge_f_score(stripes(6, 16), stripes(6)).item() == pytest.approx(2 / 3)


def test_edge_f_score_without_edges() -> None:
    flat = torch.zeros(1, 3, 24, 24)
    assert measures.edge_f_score(flat, flat).item() == 1
    assert measures.edge_f_score(flat, stripes(8)).item() == 0
    assert measures.edge_f_score(stripes(8), flat).item() == 0


def test_edge_f_score_equals_scipys_dilation() -> None:
    output, truth = noise(3, 3, 32, 40), noise(3, 3, 32, 40)
    found, wanted = measures.canny_edges(output).numpy(), measures.canny_edges(truth).numpy()
    assert found.any()
    square = np.ones((3, 3), bool)
    for value, a, b in zip(measures.edge_f_score(output, truth).tolist(), found, wanted, strict=True):
        precision = ndimage.binary_dilation(b, square)[a].mean()
        recall = ndimage.binary_dilation(a, square)[b].mean()
        assert value == pytest.approx(2 * precision * recall / (precision + recall))


def test_flatness_counts_pairs_of_neighbours() -> None:
    # Levels: 10 11 / 13 13. Across: |1| and 0 are equal; down: 3 and 2 are not. 2 of 4 pairs.
    levels = torch.tensor([[10, 11], [13, 13]], dtype=torch.uint8).expand(2, 3, 2, 2).clone()
    levels[1, 2, 0, 0] = 13  # in one channel the first pair differs by 2 now; down it becomes equal only there
    assert measures.flatness(to_float(levels)).tolist() == [0.5, 0.25]


def test_colour_distance_hand_values() -> None:
    def plain(red: int, green: int, blue: int) -> Tensor:
        return to_float(torch.tensor([red, green, blue], dtype=torch.uint8)).view(1, 3, 1, 1).expand(1, 3, 4, 4)

    black = plain(0, 0, 0)
    assert measures.colour_distance(plain(255, 255, 255), black).item() == pytest.approx(100, abs=0.05)
    # Lab of sRGB red is (53.24, 80.09, 67.20).
    assert measures.colour_distance(plain(255, 0, 0), black).item() == pytest.approx(117.34, abs=0.1)
    assert measures.colour_distance(black, black).item() == 0


def test_chroma_ratio_is_the_saturation() -> None:
    photo = noise(2, 3, 16, 16)
    grey = photo.mean(1, keepdim=True).expand_as(photo)
    torch.testing.assert_close(measures.chroma_ratio(0.3 * photo + 0.2, photo), torch.tensor([0.3, 0.3]))
    assert measures.chroma_ratio(grey, photo).max() < 1e-5
    assert measures.chroma_ratio(grey, grey).isfinite().all()


def test_clipped_counts_the_values_at_the_ends() -> None:
    levels = torch.full((1, 3, 2, 2), 100, dtype=torch.uint8)
    levels[0, 0, 0] = torch.tensor([0, 255])
    levels[0, 1, 1] = torch.tensor([1, 254])  # not at the end
    assert measures.clipped(to_float(levels)).item() == pytest.approx(2 / 12)


def lined(dark: int, width: int) -> Tensor:
    """A grey image, 40x40, with a darker vertical line of that width."""
    levels = torch.full((1, 3, 40, 40), 150, dtype=torch.uint8)
    levels[..., 15 : 15 + width] = 150 - dark
    return to_float(levels)


@pytest.mark.parametrize(
    ("dark", "width", "share"),
    [
        (26, 2, 2 / 40),
        (25, 2, 0),  # not darker by more than 25 levels
        (-60, 2, 0),  # brighter
        (100, 5, 5 / 40),
        (100, 20, 0),  # an area, whose median is its own grey
    ],
)
def test_ink_is_the_share_of_thin_dark_lines(dark: int, width: int, share: float) -> None:
    assert measures.ink(lined(dark, width)).item() == pytest.approx(share)


def test_texture_is_the_mean_distance_from_the_blur() -> None:
    image = lined(80, 1)
    # Gauss of sigma 1.5, normalised on 13 pixels: at distance d from the line the blur is darker by 80 w(d).
    weights = np.exp(-(np.arange(-6, 7) ** 2) / (2 * 1.5**2))
    weights /= weights.sum()
    centre, others = 80 * (1 - weights[6]), 80 * (1 - weights[6])  # what the line lacks, its neighbours have
    assert measures.texture(image).item() == pytest.approx((centre + others) / 40, rel=1e-4)
    assert measures.texture(torch.zeros(1, 3, 16, 16)).item() == 0


def test_colour_change_ignores_lines_and_sees_areas() -> None:
    grey = lined(0, 1)
    pattern = to_float(torch.tensor([140, 160], dtype=torch.uint8).repeat(20).expand(1, 3, 40, 40))  # mean 150
    assert measures.colour_change(pattern, grey).item() < 0.5 < measures.colour_distance(pattern, grey).item()
    plain = torch.zeros(1, 3, 40, 40)
    brighter = plain + 0.2
    expected = measures.colour_distance(brighter, plain).item()
    assert measures.colour_change(brighter, plain).item() == pytest.approx(expected, rel=1e-4)


def test_high_frequency_ratio_is_the_square_of_the_contrast() -> None:
    image = noise(2, 3, 64, 64)
    ratio = measures.high_frequency_ratio(image / 2, image)
    assert ratio.tolist() == pytest.approx([0.25, 0.25], rel=1e-3)
    x = torch.arange(64)
    slow, fast = (torch.cos(2 * torch.pi * x / period).expand(1, 3, 64, 64) for period in (8.0, 2.0))
    # A wave of 8 px adds nothing to the band, one of 2 px does.
    assert measures.high_frequency_ratio(image[:1] / 2 + slow / 2, image[:1] / 2).item() == pytest.approx(1, abs=0.1)
    assert measures.high_frequency_ratio(image[:1] / 2 + fast / 2, image[:1] / 2).item() > 2


@pytest.mark.parametrize(
    "grid",
    [
        lambda y, x: torch.cos(torch.pi * x),
        lambda y, x: torch.cos(torch.pi * (x + y)),
        lambda y, x: torch.cos(torch.pi / 2 * y),
        lambda y, x: torch.cos(torch.pi / 2 * (x - y)),
    ],
    ids=["columns of 2", "checks of 2", "rows of 4", "diagonals of 4"],
)
def test_checkerboard_height_of_a_grid_in_noise(grid: Callable[[Tensor, Tensor], Tensor]) -> None:
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    grey = torch.randn(1, 1, 256, 256) * 0.1
    amplitude = 0.1
    # White noise has its variance in every bin. A wave has amplitude^2 / 4 (sum w)^2 / sum w^2 in each of its two bins,
    # with twice the amplitude in one bin if these coincide; for a Hann window of 32 x 32 the fraction is 256^2 / 144.
    wave = grid(y, x) * amplitude
    bins = 4 if wave.square().mean() < 0.9 * amplitude**2 else 1
    expected = 10 * np.log10(1 + amplitude**2 / bins * 256**2 / 144 / 0.1**2)
    assert measures.checkerboard((grey + wave).expand(1, 3, -1, -1)).item() == pytest.approx(expected, abs=1.0)
    assert measures.checkerboard(grey.expand(1, 3, -1, -1)).item() < 2


def test_measures_give_one_value_per_image_whatever_the_batch() -> None:
    output, truth = noise(3, 3, 48, 40), noise(3, 3, 48, 40)
    pairs = [
        *(measures.psnr, measures.ssim, measures.edge_f_score, measures.colour_distance),
        *(measures.chroma_ratio, measures.high_frequency_ratio, measures.colour_change),
    ]
    for pair in pairs:
        alone = torch.cat([pair(output[n : n + 1], truth[n : n + 1]) for n in range(3)])
        torch.testing.assert_close(pair(output, truth), alone)
    for single in (measures.flatness, measures.ink, measures.texture, measures.clipped, measures.checkerboard):
        torch.testing.assert_close(single(output), torch.cat([single(output[n : n + 1]) for n in range(3)]))


def test_edges_and_flatness_see_the_image_as_stored() -> None:
    image = noise(1, 3, 32, 32, scale=1.2)
    stored = to_float(to_uint8(image))
    assert measures.flatness(image).item() == measures.flatness(stored).item()
    assert torch.equal(measures.canny_edges(image), measures.canny_edges(stored))


def test_mismatched_shapes_and_small_images_are_reported() -> None:
    with pytest.raises(AnimegenError, match="cannot be compared"):
        measures.psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 9))
    with pytest.raises(AnimegenError, match="32x32"):
        measures.checkerboard(torch.zeros(1, 3, 31, 40))
