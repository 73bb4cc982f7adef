"""What there is to learn: trivial baselines must score as published for this world, or results cannot be compared."""

from functools import cache

import cv2
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import cg

from animegen.toonworld import LOOKS, STYLES, Scene, draw

NODES = 17


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((np.clip(a, 0, 255) - b) ** 2))


def trilinear(colours):
    """The sparse matrix that interpolates a 17^3 table at colours (N, 3)."""
    place = colours.astype(float) / 255 * (NODES - 1)
    cell = np.minimum(place.astype(int), NODES - 2)
    part = place - cell
    index, weight = [], []
    for corner in np.ndindex(2, 2, 2):
        index.append(np.ravel_multi_index(tuple((cell + corner).T), (NODES,) * 3))
        weight.append(np.prod(np.where(corner, part, 1 - part), axis=1))
    rows = np.tile(np.arange(len(colours)), 8)
    return sparse.csr_matrix((np.concatenate(weight), (rows, np.concatenate(index))), (len(colours), NODES**3))


def smoothness():
    step = sparse.diags_array([-1.0, 1.0], offsets=[0, 1], shape=(NODES - 1, NODES))
    eye = sparse.eye_array(NODES)
    along = [sparse.kron(sparse.kron(a, b), c) for a, b, c in ((step, eye, eye), (eye, step, eye), (eye, eye, step))]
    return sum(matrix.T @ matrix for matrix in along)


@pytest.fixture(scope="module")
def stylise():
    def pixels(images):
        return {look: array.transpose(0, 2, 3, 1).astype(np.float32) for look, array in images.items()}

    train, val = pixels(draw(LOOKS, "train", 28)), pixels(draw(LOOKS, "val", 16))
    chosen = np.random.default_rng(0).permutation(train["photo"][..., 0].size)[::10]
    design = trilinear(train["photo"].reshape(-1, 3)[chosen])
    normal = (design.T @ design + 2.0 * smoothness()).tocsr()
    inside = [trilinear(photo.reshape(-1, 3)) for photo in val["photo"]]
    result = {}
    for style in STYLES:
        truth = train[style].reshape(-1, 3)
        mean = truth.mean(0)
        fitted = [
            cg(normal, design.T @ truth[chosen, c], rtol=1e-4, maxiter=200, x0=np.full(NODES**3, mean[c]))[0]
            for c in range(3)
        ]
        table = np.stack(fitted, 1)
        pairs = list(zip(val["photo"], val[style], strict=True))
        result[style] = {
            "mean": np.mean([psnr(np.broadcast_to(mean, b.shape), b) for _, b in pairs]),
            "identity": np.mean([psnr(a, b) for a, b in pairs]),
            "table": np.mean(
                [psnr((at @ table).reshape(b.shape), b) for at, (_, b) in zip(inside, pairs, strict=True)]
            ),
        }
    result["between styles"] = [
        np.mean([psnr(a, b) for a, b in zip(val[s], val[u], strict=True)]) for s, u in STYLE_PAIRS
    ]
    return result


STYLE_PAIRS = [("meadow", "dusk"), ("dusk", "print"), ("print", "meadow")]


@pytest.mark.parametrize(
    ("style", "mean", "identity", "table"),
    [("meadow", 12.7, 13.0, 18.9), ("dusk", 14.5, 13.2, 19.0), ("print", 11.9, 11.4, 14.7)],
)
def test_stylise_baselines(stylise, style, mean, identity, table):
    assert stylise[style]["mean"] == pytest.approx(mean, abs=1)
    assert stylise[style]["identity"] == pytest.approx(identity, abs=1)
    assert stylise[style]["table"] == pytest.approx(table, abs=1)


def test_styles_differ_among_themselves(stylise):
    assert max(stylise["between styles"]) < 14


@pytest.fixture(scope="module")
def in_between():
    """gap -> mean PSNR of the nearest frame and of the average, mean motion between the ends in pixels."""
    scores: dict[int, list[tuple[float, float, float]]] = {2: [], 4: [], 8: []}
    for index in range(20):
        scene = Scene(0, "val", index, 128, speed=0.5, hold=1)
        drawn = cache(lambda t, scene=scene: scene.anime(t, "meadow").astype(np.float32))  # several gaps share frames
        for gap in scores:
            for start in range(3, 40, 12):
                first, middle, last = (drawn(t) for t in (start, start + gap // 2, start + gap))
                motion = float(np.hypot(*scene.flow(start, start + gap)).mean())
                scores[gap].append((psnr(first, middle), psnr((first + last) / 2, middle), motion))
    return {gap: np.mean(rows, 0) for gap, rows in scores.items()}


@pytest.mark.parametrize(("gap", "nearest", "average"), [(2, 22.1, 25.0), (4, 19.3, 21.6), (8, 17.0, 19.0)])
def test_in_between_baselines(in_between, gap, nearest, average):
    assert in_between[gap][:2] == pytest.approx([nearest, average], abs=1)


def test_motion_grows_with_the_gap(in_between):
    assert in_between[4][2] == pytest.approx(1.9, abs=0.6)
    assert in_between[2][2] < in_between[4][2] < in_between[8][2]


def test_true_flow_carries_the_frames_between():
    gains = []
    for index in range(6):
        scene = Scene(0, "val", index, 128, speed=0.5, hold=1)
        first, middle, last = (scene.anime(t, "meadow").astype(np.float32) for t in (20, 22, 24))
        grid = np.stack(np.meshgrid(np.arange(128), np.arange(128)), -1).astype(np.float32)
        weight, total = 0.0, 0.0
        for t, image in ((20, first), (24, last)):
            place = grid + scene.flow(22, t).transpose(1, 2, 0)
            seen = (scene.visibility(22, t) > 0)[..., None] + 1e-3
            total = total + seen * cv2.remap(image, place, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            weight = weight + seen
        gains.append(psnr(total / weight, middle) - psnr((first + last) / 2, middle))
    assert np.mean(gains) > 4
