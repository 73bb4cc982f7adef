"""The true flow of generated clips in the samples of views: scaled, cropped and augmented as the frames are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.data.clips import ClipAugment, ClipsView, ClipView, FlowView, MixedClips, ToonWorldFrames
from animegen.data.clips.curriculum import CurriculumView
from animegen.data.clips.truth import Box, cut_flow, knows_motion
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.nn.warp import backward_warp

PAN = torch.tensor([4.0, 2.0])


class Sliding:
    """One clip: a smooth texture that moves by 4 pixels to the right and 2 down per frame."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
        self.texture = np.asarray(Image.fromarray(noise).resize((280, 220), Image.Resampling.BICUBIC))

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "sliding"

    def length(self, index: int) -> int:
        return 5

    def load(self, index: int, number: int) -> Tensor:
        top, left = 20 - 2 * number, 40 - 4 * number
        return torch.from_numpy(self.texture[top : top + 120, left : left + 180].copy()).permute(2, 0, 1)

    def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
        flow = (PAN * (other - number)).view(2, 1, 1).expand(2, 120, 180)
        return flow.clone(), torch.ones(120, 180, dtype=torch.bool)


def errors(first: Tensor, last: Tensor, flow: Tensor) -> Tensor:
    """Return the absolute difference (B,H,W) of the frames warped along the flow there and the first frames."""
    return (backward_warp(last, flow) - first).abs().amax(1)


@pytest.mark.parametrize(
    ("view", "scale"),
    [
        (lambda **s: ClipView(Sliding(), size=120, **s), 1.0),
        (lambda **s: ClipView(Sliding(), size=60, **s), 0.5),
        (lambda **s: FlowView(Sliding(), size=60, shrink=1.0, **s), 1.0),
        (lambda **s: CurriculumView(Sliding(), [{"size": [60, 80]}], zoom=1.0, size=60, **s), 0.5),
    ],
)
def test_a_uniform_motion_keeps_its_size_relative_to_the_frame(view, scale: float) -> None:
    sample = view(gap=4, exact_flow=True)[0]
    assert sample["exact_flow"].shape == (4, *sample["first"].shape[-2:])
    assert sample["exact_flow"].dtype == torch.float32
    expected = torch.cat([4 * PAN, -4 * PAN]).mul(scale).view(4, 1, 1).expand_as(sample["exact_flow"])
    assert torch.allclose(sample["exact_flow"], expected)
    first, last = (to_float(sample[key][None]) for key in ("first", "last"))
    inner = (slice(None), slice(0, 60 - 10), slice(0, 60 - 20))
    assert errors(first, last, sample["exact_flow"][None, :2])[inner].max() < 0.1
    assert "exact_flow" not in view(gap=4)[0]
    assert "flow" not in sample, "DIS is not needed"


def test_toonworld_frames_lie_on_each_other_along_the_flow_where_both_show_the_same() -> None:
    source = ToonWorldFrames("meadow", "val", scenes=2, frames=9, size=96, speed=0.6)
    view = ClipView(source, size=96, gap=4, exact_flow=True, shuffle=False)
    for index in range(2):
        sample = view[index]
        first, last = (to_float(sample[key][None]) for key in ("first", "last"))
        there, back = sample["exact_flow"][None].split(2, 1)
        for a, b, flow, ends in ((first, last, there, (2, 6)), (last, first, back, (6, 2))):
            seen = source.motion(index, *ends)[1]
            # Antialiased outlines and lines of fixed width differ a little in either frame.
            assert errors(a, b, flow)[0][seen].median() < 0.02
            assert errors(a, b, flow)[0][seen].mean() < 0.5 * errors(a, b, torch.zeros_like(flow))[0][seen].mean()


def test_the_same_window_of_frames_and_flow() -> None:
    """The flow holds the place of each pixel, as the frames do: they must stay equal."""

    class Places(Sliding):
        def load(self, index: int, number: int) -> Tensor:
            rows, columns = torch.meshgrid(torch.arange(120), torch.arange(180), indexing="ij")
            return torch.stack([columns, rows, rows]).to(torch.uint8)

        def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
            return self.load(0, 0)[:2].float(), torch.ones(120, 180, dtype=torch.bool)

    for view in (
        ClipView(Places(), size=120, gap=4, exact_flow=True),
        FlowView(Places(), size=64, shrink=1.0, gap=4, exact_flow=True),
    ):
        for number in range(4):
            sample = view[number]
            assert torch.equal(sample["exact_flow"][:2], sample["first"][:2].float())
            assert torch.equal(sample["exact_flow"][2:], sample["first"][:2].float())
    windows = {int(sample["first"][0, 0, 0]) for sample in (view[n] for n in range(4))}
    assert len(windows) > 1, "crops are at random places"


def test_scaled_parts_take_the_nearest_vector() -> None:
    flow = torch.arange(8.0).view(1, 1, 8).expand(2, 4, 8)
    half = cut_flow(flow, Box(0, 2, 4, 4), 2, 2)
    assert half.shape == (2, 2, 2)
    assert half[:, 0].tolist() == [[1.5, 2.5], [1.5, 2.5]]  # columns 3 and 5, halved
    twice = cut_flow(flow, Box(1, 6, 1, 2), 2, 4)
    assert twice[0].tolist() == [[12, 12, 14, 14], [12, 12, 14, 14]]
    assert cut_flow(flow, Box(0, 0, 4, 8), 4, 4)[:, 0, 3].tolist() == [3.5, 7.0]  # narrower only: y stays


def test_augmentation_treats_it_as_an_estimated_flow() -> None:
    view = ClipView(Sliding(), size=100, gap=4, exact_flow=True)
    batch = torch.utils.data.default_collate([view[n] for n in range(12)])
    batch["exact_flow"] += torch.rand(batch["exact_flow"].shape, generator=torch.Generator().manual_seed(0)) / 10
    batch["flow"] = batch["exact_flow"].clone()
    out = ClipAugment(64, flip=True, upside_down=0.5, reverse=True)(batch)
    assert torch.equal(out["exact_flow"], out["flow"])
    there, back = out["exact_flow"].split(2, 1)
    assert len({tuple(flow[:, 32, 32].sign().tolist()) for flow in there}) == 4
    for a, b, flow in ((out["first"], out["last"], there), (out["last"], out["first"], back)):
        assert errors(a, b, flow)[:, 20:44, 20:44].max() < 0.1
        assert (a - b)[..., 20:44, 20:44].abs().mean((1, 2, 3)).min() > 0.1


def test_motion_of_the_frames_between_is_augmented_with_them() -> None:
    view = ClipView(Sliding(), size=100, gap=4, middle="all", exact_flow=True, exact_motion=True)
    batch = torch.utils.data.default_collate([view[n] for n in range(12)])
    batch["exact_sight"][:, :, 0] = False  # hidden in the first frame
    out = ClipAugment(64, flip=True, upside_down=0.5, reverse=True)(batch)
    time = out["t"].view(12, 3, 1, 1, 1)
    there = out["exact_flow"][:, None, :2]
    # Uniform motion: t of it back to the first frame, 1 - t on to the last.
    assert torch.allclose(out["exact_between"], torch.cat([-time * there, (1 - time) * there], 2), atol=1e-5)
    reversed_in_time = out["exact_sight"][:, 0, 0, 0, 0]
    assert torch.equal(out["exact_sight"][:, :, 1], ~out["exact_sight"][:, :, 0])
    assert reversed_in_time.unique().tolist() == [False, True]
    # A mask of what is bright is, after the augmentation, what is bright in the frames.
    batch["exact_sight"] = torch.stack([batch["truth"][:, :, 0] > 128, batch["truth"][:, :, 1] > 128], 2)
    seen = ClipAugment(64, flip=True, upside_down=0.5, reverse=False)(batch)
    bright = torch.stack([seen["truth"][:, :, 0], seen["truth"][:, :, 1]], 2) > 128.5 / 127.5 - 1
    assert torch.equal(seen["exact_sight"], bright)
    warped = backward_warp(out["last"], out["exact_between"][:, 1, 2:])
    assert (warped - out["truth"][:, 1])[..., 20:44, 20:44].abs().max() < 0.1


class Unknown(Sliding):
    motion = None  # type: ignore[assignment]


def test_clips_without_known_motion_are_refused() -> None:
    still = MixedClips({"a": ToonWorldFrames(scenes=1, frames=3, size=32), "b": Unknown()})
    assert not knows_motion(still)
    for clips in (Unknown(), still):
        with pytest.raises(AnimegenError, match="needs clips whose motion is known"):
            ClipView(clips, exact_flow=True)
    with pytest.raises(AnimegenError, match="motion of the clips 'b' is not known"):
        still.motion(1, 0, 1)
    mixed = MixedClips({"none": None, "sliding": Sliding()}, {"sliding": 2})
    assert knows_motion(mixed)
    assert mixed.motion(1, 0, 3)[0][:, 5, 5].tolist() == [12.0, 6.0]


@pytest.mark.parametrize(("shape", "scale"), [((60, 60), 0.5), ((60, 90), 0.5), ((120, 60), 1.0)])
def test_frames_of_any_shape_have_the_motion_of_their_part(shape: tuple[int, int], scale: float) -> None:
    view = ClipsView(Sliding(), shape, gap=4, shuffle=False)
    assert "exact_between" not in view[0]
    view.exact_motion = True
    sample = view[0]
    assert sample["exact_between"].shape == (3, 4, *shape)
    assert sample["exact_sight"].shape == (3, 2, *shape)
    expected = torch.cat([-1 * PAN, 3 * PAN]).mul(scale).view(4, 1, 1).expand(4, *shape)
    assert torch.allclose(sample["exact_between"][0], expected)
