"""Flow: one sign convention, DIS near the exact flow of ToonWorld, RAFT from a file only."""

from __future__ import annotations

import pickle
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.optical_flow import raft_small

from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import (
    ESTIMATORS,
    DISFlow,
    EstimatedMotion,
    ExactMotion,
    FlowEstimator,
    RAFTFlow,
    flow_estimates,
)
from animegen.nn.warp import backward_warp
from animegen.toonworld import VISIBLE, Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(0, "test", 1, size=96, frames=12, hold=1)


def frame(scene: Scene, t: int) -> Tensor:
    return to_float(torch.from_numpy(scene.photo(t).transpose(2, 0, 1).copy()))[None]


@pytest.mark.parametrize("estimate", ESTIMATORS, ids=lambda estimate: estimate.name)
def test_estimators_follow_a_known_shift(estimate: FlowEstimator) -> None:
    noise = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    large = torch.nn.functional.interpolate(noise, (96, 96), mode="bicubic").clamp(-1, 1)
    # b shows everything 3 px further right and 2 px further up than a.
    a, b = large[..., 8:88, 8:88], large[..., 10:90, 5:85]
    flow = estimate(a, b)
    inner = flow[..., 10:-10, 10:-10]
    assert flow.shape == (1, 2, 80, 80)
    assert inner[:, 0].median() == pytest.approx(3, abs=0.1)
    assert inner[:, 1].median() == pytest.approx(-2, abs=0.1)
    warped = backward_warp(b, flow)
    assert (warped - a)[..., 10:-10, 10:-10].abs().mean() < 0.03 < (b - a).abs().mean()


def test_estimators_differ() -> None:
    a, b = torch.rand(2, 1, 3, 40, 56, generator=torch.Generator().manual_seed(2)) * 2 - 1
    flows = [estimate(a, b) for estimate in ESTIMATORS]
    assert {flow.shape for flow in flows} == {(1, 2, 40, 56)}
    assert not any(torch.equal(one, other) for one, other in combinations(flows, 2))
    assert [e.name for e in ESTIMATORS][2:] == ["dis_gradient_transposed", "dis_mirrored"]
    for count in (0, len(ESTIMATORS) + 1):
        with pytest.raises(ValueError, match="There are 1 to 4 estimates"):
            flow_estimates(a, b, count=count)


def test_flow_of_turned_images_is_turned_back() -> None:
    a, b = torch.rand(2, 1, 3, 40, 56, generator=torch.Generator().manual_seed(3)) * 2 - 1
    b[..., :28] = a[..., :28]  # moves on the right only
    plain, signs = DISFlow(), torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1)
    mirrored = plain(a.flip(-1), b.flip(-1)).flip(-1) * signs
    assert torch.equal(DISFlow(mirrored=True)(a, b), mirrored)
    assert torch.equal(DISFlow(transposed=True)(a, b), plain(a.mT, b.mT).mT.flip(1))
    both = plain(a.flip(-1).mT, b.flip(-1).mT).mT.flip(1).flip(-1) * signs
    assert torch.equal(DISFlow(mirrored=True, transposed=True)(a, b), both)


def test_dis_uses_no_more_threads_than_torch_and_finds_the_same() -> None:
    a, b = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    of_torch, of_opencv = torch.get_num_threads(), cv2.getNumThreads()
    try:
        flows = []
        for threads in (2, 1):
            cv2.setNumThreads(2)
            torch.set_num_threads(threads)
            flows.append(DISFlow()(a, b))
            assert cv2.getNumThreads() == threads
        assert torch.equal(*flows)
    finally:
        torch.set_num_threads(of_torch)
        cv2.setNumThreads(of_opencv)


@pytest.mark.parametrize(("gap", "limit"), [(1, 0.3), (4, 0.8)])
def test_dis_lies_near_the_exact_flow(scene: Scene, gap: int, limit: float) -> None:
    exact = ExactMotion(scene).between(3, 3 + gap)
    flow = DISFlow()(frame(scene, 3), frame(scene, 3 + gap))
    error = (flow - exact.flow).norm(dim=1, keepdim=True)[exact.valid].mean()
    still = exact.flow.norm(dim=1, keepdim=True)[exact.valid].mean()
    wrong = (-flow - exact.flow).norm(dim=1, keepdim=True)[exact.valid].mean()
    assert error < limit  # px; measured .15 and .4 at 128 px
    assert error < 0.9 * still < wrong


def test_more_descent_follows_larger_motion(scene: Scene) -> None:
    exact = ExactMotion(scene).between(1, 8)
    errors = [
        float(
            (DISFlow(descent=steps)(frame(scene, 1), frame(scene, 8)) - exact.flow)
            .norm(dim=1)[exact.valid[:, 0]]
            .mean()
        )
        for steps in (3, 50)
    ]
    assert errors[1] < errors[0]
    assert (DISFlow(descent=50).name, DISFlow("fast", 50).name) == ("dis_50", "dis_fast_50")


def test_exact_motion_is_the_scenes(scene: Scene) -> None:
    motion = ExactMotion(scene)
    flow, valid = motion.between(2, 6)
    np.testing.assert_array_equal(flow[0].numpy(), scene.flow(2, 6))
    np.testing.assert_array_equal(valid[0, 0].numpy(), scene.visibility(2, 6) == VISIBLE)
    assert motion.between(2, 6)[0] is flow
    # Warping the later frame back gives the earlier one, which tells the direction.
    a, b = frame(scene, 2), frame(scene, 6)
    mask = valid.expand_as(a)
    assert (backward_warp(b, flow) - a)[mask].abs().mean() < 0.7 * (b - a)[mask].abs().mean()


def test_estimated_motion_counts_every_flow_once(scene: Scene) -> None:
    calls = []

    class Right:
        name = "right"

        def __call__(self, a: Tensor, b: Tensor) -> Tensor:
            calls.append(1)
            sign = 1.0 if a.mean() < b.mean() else -1.0
            return torch.tensor([2.0 * sign, 0.0]).view(1, 2, 1, 1).expand(1, 2, *a.shape[-2:])

    clip = torch.stack([torch.full((3, 8, 8), level, dtype=torch.uint8) for level in (10, 20, 30)])
    motion = EstimatedMotion(clip, Right())
    assert motion.name == "right"
    flow, valid = motion.between(0, 1)
    assert flow[0, 0, 0, 0] == 2
    assert valid[0, 0, 0].tolist() == [True] * 6 + [False] * 2  # the way back agrees; the right edge leaves the image
    assert motion.between(1, 0).flow[0, 0, 0, 0] == -2
    assert len(calls) == 2


def test_presets_and_pickling() -> None:
    fast = pickle.loads(pickle.dumps(DISFlow("fast")))
    assert (fast.name, DISFlow().name) == ("dis_fast", "dis")
    a, b = torch.rand(2, 2, 3, 32, 40).mul(2).sub(1)
    assert torch.equal(fast(a, b), DISFlow("fast")(a, b))
    with pytest.raises(AnimegenError, match=r"no preset 'medum'.*Did you mean 'medium'"):
        DISFlow("medum")


def test_raft_needs_its_weights(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match=r"no weights were given.*use DIS"):
        RAFTFlow()
    with pytest.raises(AnimegenError, match="does not exist"):
        RAFTFlow(tmp_path / "none.pth")
    with pytest.raises(AnimegenError, match="no flow network 'raft'"):
        RAFTFlow(tmp_path / "none.pth", "raft")
    (tmp_path / "broken.pth").write_bytes(b"nothing")
    with pytest.raises(AnimegenError, match="does not hold the weights"):
        RAFTFlow(tmp_path / "broken.pth")


def test_raft_is_torchvisions_at_any_size(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = raft_small(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    flow = RAFTFlow(tmp_path / "raft.pth")
    a, b = torch.rand(2, 1, 3, 128, 136).mul(2).sub(1)
    with torch.no_grad():
        torch.testing.assert_close(flow(a, b), network(a, b)[-1])
    assert flow.name == "raft_small"
    assert flow(a[..., :50, :70], b[..., :50, :70]).shape == (1, 2, 50, 70)


def test_a_flow_depends_on_its_two_images_alone() -> None:
    """OpenCV's object gives another flow, by a tenth of a pixel, once it has seen other images."""
    generator = torch.Generator().manual_seed(0)
    scene = F.interpolate(torch.rand(1, 3, 8, 24, generator=generator) * 2 - 1, (32, 96), mode="bicubic")
    frames = [scene[..., 2 * t : 2 * t + 40] for t in range(4)]
    flow = DISFlow()
    first = flow(frames[0], frames[1])
    flow(frames[2], frames[3])
    assert torch.equal(flow(frames[0], frames[1]), first)
