"""Edge smoothing against OpenCV (to the bit), against a slow loop, and against hand values."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from animegen.data.edge_smoothing import canny, dilate, edge_smooth, gaussian_5x5, grey
from animegen.media.images import to_float


def pictures() -> list[np.ndarray]:
    """Noise, clouds, drawings and text: (H, W, 3) uint8 of several shapes."""
    rng = np.random.default_rng(0)
    found = [rng.integers(0, 256, (33, 47, 3), dtype=np.uint8)]
    for sigma in (0.7, 1.0, 1.5, 2.0, 3.0):
        cloud = cv2.GaussianBlur(rng.integers(0, 256, (64, 81, 3)).astype(np.float32), (0, 0), sigma)
        found.append(cv2.normalize(cloud, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8))
    drawing = np.full((96, 96, 3), (250, 220, 180), np.uint8)
    for _ in range(12):
        points = rng.integers(0, 96, (4, 2)).astype(np.int32)
        cv2.fillPoly(drawing, [points], rng.integers(0, 256, 3).tolist())
        cv2.circle(drawing, rng.integers(0, 96, 2).tolist(), 11, rng.integers(0, 256, 3).tolist(), 2, cv2.LINE_AA)
    found.append(drawing)
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (50, 1))
    found += [np.stack([ramp, ramp.copy()[:, ::-1], ramp], axis=-1), np.full((16, 16, 3), 90, np.uint8)]
    return found


def tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("number", range(len(pictures())))
@pytest.mark.parametrize(("low", "high"), [(100, 200), (30, 400), (0, 50), (150, 150)])
def test_every_stage_equals_opencv_to_the_bit(number: int, low: int, high: int) -> None:
    picture = pictures()[number]
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(grey(tensor(picture))[0].numpy(), luma)
    edges = cv2.Canny(luma, low, high) > 0
    assert np.array_equal(canny(torch.from_numpy(luma)[None].int(), low, high)[0].numpy(), edges)
    grown = cv2.dilate(edges.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert np.array_equal(dilate(torch.from_numpy(edges)[None], 2)[0].numpy(), grown)
    blurred = cv2.GaussianBlur(picture, (5, 5), 0)
    assert np.array_equal(gaussian_5x5(tensor(picture))[0].permute(1, 2, 0).numpy(), blurred)
    expected = np.where(grown[..., None], blurred, picture)
    assert np.array_equal(edge_smooth(tensor(picture), low, high)[0].permute(1, 2, 0).numpy(), expected)


def slow_edge_smooth(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The published procedure, pixel by pixel, for a known edge mask."""
    weights = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256
    padded = np.pad(picture, ((2, 2), (2, 2), (0, 0)), mode="reflect").astype(np.float64)
    height, width, _ = picture.shape
    out = picture.copy()
    for y in range(height):
        for x in range(width):
            if mask[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].any():
                for c in range(3):
                    mean = (padded[y : y + 5, x : x + 5, c] * weights).sum()
                    out[y, x, c] = int(np.floor(mean + 0.5))
    return out


def test_equals_the_slow_loop() -> None:
    picture = pictures()[6][:40, :44]
    mask = cv2.Canny(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY), 100, 200) > 0
    assert mask.any()
    smoothed = edge_smooth(tensor(picture))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(smoothed, slow_edge_smooth(picture, mask))


def test_constant_image_is_unchanged() -> None:
    picture = torch.full((2, 3, 20, 24), 117, dtype=torch.uint8)
    assert torch.equal(edge_smooth(picture), picture)
    assert torch.equal(edge_smooth(to_float(picture)), to_float(picture))


def test_kernel_sums_to_one_and_has_its_values() -> None:
    impulse = torch.zeros(1, 3, 9, 9)
    impulse[..., 4, 4] = 256.0
    response = gaussian_5x5(impulse)
    row = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
    assert torch.equal(response[0, 0, 2:7, 2:7], torch.outer(row, row))
    assert response[0, 0].sum() == 256


def test_step_edge_is_blurred_inside_the_dilated_mask_only() -> None:
    picture = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    picture[..., 8:] = 200
    edges = canny(grey(picture))[0]
    # Columns 7 and 8 have the same gradient; the first of a plateau is the edge.
    assert edges.nonzero()[:, 1].unique().tolist() == [7]
    smoothed = edge_smooth(picture)
    changed = (smoothed != picture).any(dim=1)[0]
    assert changed.nonzero()[:, 1].unique().tolist() == [6, 7, 8, 9]  # of the mask's 5..9; in 5 all is 0 anyway
    # 200 * (1, 5, 11, 15, 16) / 16 from column 6 on.
    assert smoothed[0, 0, 8, 5:11].tolist() == [0, 13, 63, 138, 188, 200]


def test_weak_edges_need_a_strong_one() -> None:
    # The L1 norm beside a vertical step of height h is 4 h: 140 is weak, 240 is strong.
    weak = torch.zeros(1, 20, 20, dtype=torch.int32)
    weak[:, :, 10:] = 35
    assert canny(weak).sum() == 0
    connected = weak.clone()
    connected[:, :3, 10:] = 60
    found = canny(connected)[0].numpy()
    assert found[4:, 9].all()  # down to the last row, which is far from the strong part
    assert np.array_equal(found, cv2.Canny(connected[0].numpy().astype(np.uint8), 100, 200) > 0)


def test_hysteresis_follows_a_long_path() -> None:
    # A weak line in serpentines with one strong spot at its end: hundreds of pixels to walk.
    line = np.zeros((80, 80), np.uint8)
    turns = [(x, y) for k, y in enumerate(range(6, 76, 8)) for x in ((6, 74) if k % 2 == 0 else (74, 6))]
    cv2.polylines(line, [np.array(turns, np.int32)], False, 30, 3)
    assert cv2.Canny(line, 50, 400).sum() == 0
    line[4:9, 4:9] = 255
    expected = cv2.Canny(line, 50, 400) > 0
    assert expected.sum() > 1000
    assert np.array_equal(canny(torch.from_numpy(line)[None].int(), 50, 400)[0].numpy(), expected)


def test_batch_does_not_matter() -> None:
    first, second = tensor(pictures()[6]), torch.flip(tensor(pictures()[6]), [-1])
    both = edge_smooth(torch.cat([first, second]))
    assert torch.equal(both[:1], edge_smooth(first))
    assert torch.equal(both[1:], edge_smooth(second))


def test_floats_find_the_same_edges_and_are_not_rounded() -> None:
    picture = tensor(pictures()[6])
    whole, fine = edge_smooth(picture), edge_smooth(to_float(picture))
    assert fine.dtype == torch.float32
    assert (fine - to_float(whole)).abs().max() <= 0.5 / 127.5 + 1e-5
    assert torch.equal(
        (fine != to_float(picture)).any(1),
        (gaussian_5x5(to_float(picture)) != to_float(picture)).any(1) & dilate(canny(grey(picture)), 2),
    )
