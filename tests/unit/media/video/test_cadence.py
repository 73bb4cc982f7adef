"""Which frames show the same drawing, and on how many frames a shot is drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen.media.video.cadence import rhythm, same_drawing, sameness
from animegen.nn.colour import rgb_to_lab
from animegen.toonworld.scene import Scene
from tests.video_support import noise


def changes(frames: list[Tensor]) -> list[bool]:
    """Compare each frame with the first one of the hold before it."""
    found, known = [], frames[0]
    for number, frame in enumerate(frames):
        new = number == 0 or not same_drawing(known, frame)
        known = frame if new else known
        found.append(new)
    return found


@pytest.mark.parametrize("hold", [1, 2, 3])
def test_the_rhythm_of_a_drawn_scene_is_found(hold: int) -> None:
    scene = Scene(seed=0, split="train", index=1, size=96)
    generator = torch.Generator().manual_seed(0)
    frames = []
    for number in range(12):
        drawn = torch.from_numpy(scene.anime(2 * (number // hold), "meadow").copy()).permute(2, 0, 1)
        grain = torch.randint(-1, 2, drawn.shape, generator=generator)
        frames.append((drawn.int() + grain).clamp(0, 255).to(torch.uint8))
    found = changes(frames)
    assert found == [number % hold == 0 for number in range(12)]
    assert rhythm(found) == hold


def test_a_slow_pan_is_no_held_drawing() -> None:
    wide = torch.nn.functional.interpolate(noise(0, 20, 60)[None], (80, 480), mode="bilinear")[0]
    frames = [wide[:, :, n : n + 160] for n in range(8)]
    found = changes(frames)
    assert sum(found) >= 4  # a pixel per frame: at the latest the second step is seen, since the reference stays
    assert rhythm(found) in (1, 2)


def test_rhythms_by_hand() -> None:
    assert rhythm([True, False] * 6) == 2
    assert rhythm([True] + [False] * 8 + [True, False, False] * 4) == 3  # a pause changes nothing
    assert rhythm([True] * 5) == 1
    assert rhythm([True] + [False] * 9) is None
    assert rhythm([]) is None


def test_sameness_is_the_published_rule() -> None:
    first, second = noise(1), (noise(1).int() + 2).clamp(0, 255).to(torch.uint8)
    gap = (rgb_to_lab(first[None] / 127.5 - 1) - rgb_to_lab(second[None] / 127.5 - 1)).norm(dim=1)
    expected = -2.1593 * gap.mean() - 0.2038 * gap.max() + 4.0879
    assert sameness(first, second) == pytest.approx(float(expected), abs=0.02)
    assert sameness(first, first) == 4.0879
