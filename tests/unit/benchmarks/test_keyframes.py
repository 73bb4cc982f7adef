"""Key frames: what the baselines make of them, and the gains over them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from animegen.benchmarks import keyframe_baselines as keyframes
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.metrics.image import psnr
from animegen.toonworld import ToonWorldClips


class Right:
    """An estimator that says: everything moves 1 px to the right per frame, the frame number being the brightness."""

    name = "right"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        steps = ((b[:, :, 0, 0] - a[:, :, 0, 0]) * 127.5).round().mean(1)
        flow = torch.zeros(len(a), 2, *a.shape[-2:])
        flow[:, 0] = steps.view(-1, 1, 1)
        return flow


def numbered(frames: int = 6) -> Tensor:
    return torch.arange(frames, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 12, 12).contiguous()


def test_keys_are_spread_and_the_nearest_is_found() -> None:
    assert keyframes.spread_keys(24, 2) == [6, 18]
    assert keyframes.spread_keys(5, 1) == [2]
    assert [keyframes.nearest_key(t, [2, 6]) for t in range(9)] == [2, 2, 2, 2, 2, 6, 6, 6, 6]
    with pytest.raises(AnimegenError, match="cannot have 6 key frames"):
        keyframes.spread_keys(5, 6)


def test_the_flow_key_is_the_nearest_key_carried_along() -> None:
    drawing = torch.randint(256, (3, 12, 12), dtype=torch.uint8)
    carried = keyframes.carry_keys(numbered(), {2: drawing}, Right())
    assert torch.equal(carried[2], drawing)
    # Two frames later all has moved two pixels to the right; the left edge is repeated.
    assert torch.equal(carried[4][:, :, 2:], drawing[:, :, :-2])
    assert torch.equal(carried[4][:, :, 0], drawing[:, :, 0])
    assert torch.equal(carried[1][:, :, :-1], drawing[:, :, 1:])


def test_the_table_recolours_and_the_nearest_key_stays() -> None:
    photo = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8)
    keys = {0: 255 - photo[0], 3: 255 - photo[3]}
    made = keyframes.keyframe_baselines(photo, keys)
    assert tuple(made) == keyframes.NAMES
    assert all(clip.dtype == torch.uint8 and clip.shape == photo.shape for clip in made.values())
    assert (made["lut"].int() - (255 - photo).int()).abs().float().mean() < 3  # the negative is a map of colours
    assert torch.equal(made["nearest_key"], torch.stack([keys[0], keys[0], keys[3], keys[3]]))
    assert torch.equal(made["flow_key"][3], keys[3])
    assert torch.equal(made["blended_keys"][3], keys[3])


def test_on_toonworld_carried_keys_beat_the_table() -> None:
    clip = ToonWorldClips("test", scenes=1, frames=12, size=64, hold=1).clip(0)
    made = keyframes.keyframe_baselines(clip["photo"], {n: clip["anime"][n] for n in (3, 9)})
    held = [t for t in range(12) if t not in (3, 9)]
    truth = to_float(clip["anime"][held])
    scores = {name: float(psnr(to_float(made[name][held]), truth).mean()) for name in keyframes.NAMES}
    assert scores["flow_key"] > scores["lut"] + 2
    assert scores["flow_key"] > scores["nearest_key"] + 2
    assert scores["blended_keys"] > scores["flow_key"]


def test_invalid_values_are_reported() -> None:
    photo = numbered()
    with pytest.raises(AnimegenError, match="at least one"):
        keyframes.keyframe_baselines(photo, {})
    with pytest.raises(AnimegenError, match=r"Key frame 6 is not in the clip, whose frames are 0 to 5"):
        keyframes.keyframe_baselines(photo, {6: photo[0]})
    with pytest.raises(AnimegenError, match="scale the drawing"):
        keyframes.keyframe_baselines(photo, {0: photo[0, :, 1:]})
    with pytest.raises(AnimegenError, match="must be uint8"):
        keyframes.carry_keys(photo.float(), {0: photo[0]})
