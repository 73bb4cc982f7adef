"""The exact flow of moving layers, by hand and by warping."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from animegen.data.clips import FlowView, MixedClips, MovingLayers, ToonWorldFrames
from animegen.data.clips.layers import _Layer
from animegen.data.clips.truth import knows_motion
from animegen.media.images import to_float
from animegen.nn.warp import backward_warp


def layer(side: int, place: tuple, speed: tuple, turn: float = 0.0, zoom: float = 1.0, opacity: int | None = None):
    """Return a layer, the background without opacity; in the middle of the clip it is neither turned nor scaled."""
    noise = np.random.default_rng(side).integers(0, 256, (side // 4, side // 4, 3), np.uint8)
    image = np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))
    if opacity is not None:
        image = np.dstack([image, np.full((side, side), opacity, np.uint8)])
    return _Layer(image, np.array(place, float), np.array(speed, float), 0.0, turn, 1.0, zoom)


def clip(*layers: _Layer) -> MovingLayers:
    """Return a clip 0 of three frames of 64 pixels."""
    clips = MovingLayers([], size=64, length=3)
    clips._latest = 0, list(layers)
    return clips


def error(clips: MovingLayers, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
    """Return the differences of frame ``number`` and the other, warped to it, and where they show the same."""
    flow, seen = clips.motion(index, number, other)
    here, there = (to_float(clips.load(index, n)[None]) for n in (number, other))
    return (backward_warp(there, flow[None]) - here).abs().amax(1)[0], seen


def test_layers_that_slide() -> None:
    # In the middle a square of 15 pixels covers 25 to 39 in both directions; before, 5 to the right and 2 up.
    clips = clip(layer(80, (31.5, 31.5), (3, 1)), layer(15, (32, 32), (-5, 2), opacity=255))
    flow, seen = clips.motion(0, 0, 2)
    assert flow.dtype == torch.float32
    square = torch.zeros(64, 64, dtype=torch.bool)
    square[23:38, 30:45] = True
    assert (flow[:, square] - torch.tensor([-10.0, 4.0])[:, None]).abs().max() < 1e-5
    assert (flow[:, ~square] - torch.tensor([6.0, 2.0])[:, None]).abs().max() < 1e-5
    hidden = torch.zeros(64, 64, dtype=torch.bool)
    hidden[25:40, 14:29] = True  # where the square ends, at rows 27 to 41 and columns 20 to 34, moved back
    hidden[:, 58:] = hidden[62:] = True  # leaves the frame
    hidden[square] = False
    assert torch.equal(seen, ~hidden)
    wrong, _ = error(clips, 0, 0, 2)
    inner = torch.zeros(64, 64, dtype=torch.bool)
    inner[4:60, 4:56] = True
    assert wrong[seen & inner].max() < 0.01
    assert wrong[hidden & inner].mean() > 0.2


def test_a_layer_that_turns_and_grows_about_its_place() -> None:
    clips = clip(layer(121, (32, 32), (0, 0), turn=0.1, zoom=1.05))
    flow, _ = clips.motion(0, 0, 2)
    assert flow[:, 32, 32].abs().max() < 1e-5
    # Ten pixels to the right: turned by .2 radians (y points down) and 1.05 squared times as far away.
    expected = [10 * 1.05**2 * math.cos(0.2) - 10, 10 * 1.05**2 * math.sin(0.2)]
    assert flow[:, 32, 42].tolist() == pytest.approx(expected, abs=1e-5)
    wrong, seen = error(clips, 0, 0, 2)
    unmoved = (to_float(clips.load(0, 0)) - to_float(clips.load(0, 2))).abs().amax(0)
    assert wrong[seen].mean() < 0.1 * unmoved[seen].mean()


def test_thin_opacity_does_not_hide() -> None:
    ground = layer(80, (31.5, 31.5), (3, 1))
    veil = clip(ground, layer(15, (32, 32), (-5, 2), opacity=120))
    assert torch.equal(veil.motion(0, 0, 2)[0], clip(ground).motion(0, 0, 2)[0])
    assert not torch.equal(veil.load(0, 0), clip(ground).load(0, 0))


def test_the_frontmost_of_two_layers_counts() -> None:
    ground, back = layer(80, (31.5, 31.5), (0, 0)), layer(31, (32, 32), (2, 0), opacity=255)
    flow, seen = clip(ground, back, layer(15, (32, 32), (0, 0), opacity=255)).motion(0, 1, 2)
    assert flow[0, 32, 20:45].tolist() == pytest.approx([2.0] * 5 + [0.0] * 15 + [2.0] * 5, abs=1e-5)
    assert seen[32, 15:50].tolist() == [True] * 8 + [False] * 2 + [True] * 23 + [False] * 2


def test_drawn_clips_lie_on_each_other_along_their_motion(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        noise = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(tmp_path / f"{n}.png")
    clips = MovingLayers([tmp_path], size=64, length=5, clips=4, speed=6.0)
    for index in range(4):
        for ends in ((0, 4), (3, 1)):
            wrong, seen = error(clips, index, *ends)
            assert 0.3 < seen.float().mean() < 1
            assert wrong[seen].median() < 0.03
    mixed = MixedClips({"layers": clips, "toonworld": ToonWorldFrames(scenes=2, frames=5, size=64, speed=0.6)})
    assert knows_motion(mixed)
    view = FlowView(mixed, size=48, gap=4, exact_flow=True)
    samples = [view[n] for n in range(6)]
    assert {sample["exact_flow"].shape for sample in samples} == {(4, 48, 48)}
