import cv2
import numpy as np
import pytest

from animegen.toonworld import BORDER, HIDDEN, VISIBLE, Scene

CLEAN = {"grain": False, "shadow": False, "vignette": False, "hold": 1, "speed": 0.5}
PAIRS = [(index, t) for index in range(3) for t in (10, 22, 34)]


def warp(image, flow, dx=0.0, dy=0.0):
    height, width = flow.shape[1:]
    x = np.arange(width, dtype=np.float32) + flow[0] + np.float32(dx)
    y = np.arange(height, dtype=np.float32)[:, None] + flow[1] + np.float32(dy)
    return cv2.remap(image.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def away_from_edges(labels, distance=1.5):
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, 5) > distance


@pytest.fixture(scope="module")
def errors():
    """Mean absolute error in grey levels of frame t+1 warped back onto frame t, by region and shift."""
    result = {}
    for index, t in PAIRS:
        scene = Scene(0, "train", index, 128, **CLEAN)
        flow, seen = scene.flow(t, t + 1), scene.visibility(t, t + 1)
        inner = (seen == VISIBLE) & away_from_edges(scene.labels(t))
        for look, now, then in (
            ("photo", scene.photo(t), scene.photo(t + 1)),
            ("anime", scene.anime(t, "meadow"), scene.anime(t + 1, "meadow")),
        ):
            error = np.abs(warp(then, flow) - now).mean(-1)
            regions = {"inner": inner, "visible": seen == VISIBLE, "border": seen == BORDER, "hidden": seen == HIDDEN}
            for region, mask in regions.items():
                result.setdefault((look, region), []).append(error[mask].mean() if mask.any() else np.nan)
            result.setdefault((look, "still"), []).append(np.abs(then.astype(float) - now).mean(-1)[inner].mean())
        for shift in (-0.2, -0.1, 0.1, 0.2):
            for axis, (dx, dy) in (("x", (shift, 0)), ("y", (0, shift))):
                moved = np.abs(warp(scene.photo(t + 1), flow, dx, dy) - scene.photo(t)).mean(-1)[inner].mean()
                result.setdefault((axis, shift), []).append(moved)
    return {key: float(np.nanmean(values)) for key, values in result.items()}


def test_the_flow_is_exact(errors):
    assert errors["photo", "inner"] < 1.6
    assert errors["anime", "inner"] < 0.6
    assert errors["photo", "still"] > 2 * errors["photo", "inner"]
    assert errors["photo", "visible"] < 2.5
    assert errors["anime", "visible"] < 3.5
    assert errors["photo", "hidden"] > 20
    assert 5 < errors["photo", "border"] < 15


def test_the_flow_has_no_offset(errors):
    for axis in "xy":
        for small, large in ((0.1, 0.2), (-0.1, -0.2)):
            assert errors["photo", "inner"] < errors[axis, small] < errors[axis, large]


def test_the_flow_is_exact_at_256():
    scene = Scene(0, "train", 1, 256, **CLEAN)
    flow, seen = scene.flow(22, 23), scene.visibility(22, 23)
    inner = (seen == VISIBLE) & away_from_edges(scene.labels(22))
    assert np.abs(warp(scene.photo(23), flow) - scene.photo(22)).mean(-1)[inner].mean() < 0.9
    assert np.abs(warp(scene.anime(23, "meadow"), flow) - scene.anime(22, "meadow")).mean(-1)[inner].mean() < 0.6


def test_flow_equals_the_matrices_for_distant_frames():
    scene = Scene(0, "val", 4, (72, 96))
    labels, flow = scene.labels(3), scene.flow(3, 40)
    assert flow.shape == (2, 72, 96)
    assert flow.dtype == np.float32
    for y, x in np.random.default_rng(0).integers(0, [72, 96], (200, 2)):
        part = labels[y, x]
        there = scene.poses(40)[part] @ np.linalg.inv(scene.poses(3)[part]) @ [x + 0.5, y + 0.5, 1]
        np.testing.assert_allclose(flow[:, y, x], there[:2] - [x + 0.5, y + 0.5], atol=1e-3)
    assert np.abs(scene.flow(5, 5)).max() < 1e-3
    assert (scene.visibility(5, 5) != HIDDEN).all()


def test_visibility_equals_its_slow_twin():
    scene = Scene(0, "val", 2, 64, speed=0.6)
    labels, flow, seen = scene.labels(20), scene.flow(20, 26), scene.visibility(20, 26)
    fine = scene._frame(26).fine
    for y, x in np.ndindex(64, 64):
        column = int(np.floor(np.float32((x + np.float32(0.5) + flow[0, y, x]) * 9)))
        row = int(np.floor(np.float32((y + np.float32(0.5) + flow[1, y, x]) * 9)))
        if not (0 <= row < 576 and 0 <= column < 576):
            assert seen[y, x] == HIDDEN
            continue
        row, column = np.clip(row, 1, 574), np.clip(column, 1, 574)
        same = (fine[row - 1 : row + 2, column - 1 : column + 2] == labels[y, x]).sum()
        assert seen[y, x] == (VISIBLE if same == 9 else HIDDEN if same == 0 else BORDER)


def test_visibility_against_a_finer_raster():
    wrong_visible = wrong_hidden = visible = hidden = 0
    for index, t in PAIRS:
        scene = Scene(0, "train", index, 128, **CLEAN)
        numbers = np.arange(len(scene.stage.parts))
        fine = scene._outlines.fill(scene.poses(t + 1), numbers, (128, 128), 27)
        flow, seen = scene.flow(t, t + 1), scene.visibility(t, t + 1)
        x = np.floor((np.arange(128) + 0.5 + flow[0]) * 27).astype(int)
        y = np.floor((np.arange(128)[:, None] + 0.5 + flow[1]) * 27).astype(int)
        outside = (x < 0) | (y < 0) | (x >= 27 * 128) | (y >= 27 * 128)
        same = (fine[y.clip(0, 27 * 128 - 1), x.clip(0, 27 * 128 - 1)] == scene.labels(t)) & ~outside
        wrong_visible += ((seen == VISIBLE) & ~same).sum()
        wrong_hidden += ((seen == HIDDEN) & same).sum()
        visible += (seen == VISIBLE).sum()
        hidden += (seen == HIDDEN).sum()
    assert wrong_visible / visible < 1e-4
    assert wrong_hidden / hidden < 0.01
    assert 0.9 < visible / (len(PAIRS) * 128 * 128) < 0.98
