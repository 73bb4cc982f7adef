"""Crops with DIS flow for training with a prior, and the moving layers that they are cut from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.data.clips import ClipAugment, FlowView, MixedClips, MovingLayers, layers_if_given
from animegen.errors import AnimegenError
from animegen.nn.warp import backward_warp


class Sliding:
    """One clip: a smooth texture that moves by 2 pixels to the right and 1 down per frame."""

    def __init__(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
        self.texture = np.asarray(Image.fromarray(noise).resize((240, 200), Image.Resampling.BICUBIC))

    def __len__(self) -> int:
        return 1

    def name(self, index: int) -> str:
        return "sliding"

    def length(self, index: int) -> int:
        return 5

    def load(self, index: int, number: int) -> Tensor:
        top, left = 20 - number, 40 - 2 * number
        return torch.from_numpy(self.texture[top : top + 150, left : left + 180].copy()).permute(2, 0, 1)


def view(**settings: object) -> FlowView:
    return FlowView(Sliding(), size=96, gap=4, middle="random", shrink=1.0, **settings)  # type: ignore[arg-type]


def test_the_flow_is_that_of_the_crop() -> None:
    sample = view()[0]
    there, back = sample["flow"].split(2)
    inner = (slice(None), slice(20, 76), slice(20, 76))
    assert (there[inner].mean((1, 2)) - torch.tensor([8.0, 4.0])).abs().max() < 0.2
    assert (back[inner].mean((1, 2)) + torch.tensor([8.0, 4.0])).abs().max() < 0.2


def test_augmentation_keeps_frames_and_flow_together() -> None:
    batch = torch.utils.data.default_collate([view()[n] for n in range(12)])
    out = ClipAugment(64, flip=True, upside_down=0.5, reverse=True)(batch)
    there, back = out["flow"].split(2, 1)
    signs = {tuple(flow[:, 32, 32].sign().tolist()) for flow in there}
    assert len(signs) == 4, "mirrored, upside down and reversed samples all occur"
    for image, other, flow in ((out["first"], out["last"], there), (out["last"], out["first"], back)):
        wrong = (backward_warp(other, flow) - image)[..., 16:48, 16:48].abs().mean((1, 2, 3))
        assert wrong.max() < 0.05
        assert (other - image)[..., 16:48, 16:48].abs().mean((1, 2, 3)).min() > 0.1


def test_samples_are_reused_in_blocks_and_read_once() -> None:
    reused, plain = view(reuse=3), view()
    samples = [reused[n] for n in (0, 64, 128, 5, 192)]
    assert [int(s["sample"]) for s in samples] == [0, 64, 128, 5, 192]
    for sample, number in zip(samples, (0, 0, 0, 5, 64), strict=True):
        assert torch.equal(sample["flow"], plain[number]["flow"])
    assert set(reused._latest) == {64}, "samples of earlier blocks are dropped"


def test_moving_layers_move_steadily(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        noise = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(tmp_path / f"{n}.png")
    clips = layers_if_given(tmp_path, size=64, length=3, clips=5)
    assert clips is not None
    frames = torch.stack([clips.load(1, n) for n in range(3)])
    assert frames.shape == (3, 3, 64, 64)
    assert frames.dtype == torch.uint8
    again = MovingLayers([tmp_path], size=64, length=3, clips=5)
    assert torch.equal(again.load(1, 2), frames[2])
    assert not torch.equal(again.load(2, 2), frames[2])
    first, middle, last = frames.float()
    assert (first - last).abs().mean() > 1
    assert (first - middle).abs().mean() < (first - last).abs().mean() * 1.05


def test_sources_that_are_not_given_are_left_out() -> None:
    assert layers_if_given(None) is None
    mixed = MixedClips({"layers": None, "sliding": Sliding()}, {"layers": 3, "sliding": 2})
    assert len(mixed) == 2
    with pytest.raises(AnimegenError, match="at least one source"):
        MixedClips({"layers": None})


@pytest.mark.parametrize("wrong", [{"shrink": 0.0}, {"windows": 0}, {"reuse": 0}, {"shuffle": False}])
def test_values_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(AnimegenError, match="FlowView is for training"):
        FlowView(Sliding(), **wrong)  # type: ignore[arg-type]
