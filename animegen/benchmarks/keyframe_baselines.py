"""Baselines of few-shot stylization: simple methods that use the same key frames as a model.

The input is a clip of photos with drawings of some of its frames, the keys. The output is a drawing of every frame.

- ``lut``: the best colour table fitted to the keys. A model that is not better only changes colours.
- ``nearest_key``: the nearest key in time (the earlier one of two), repeated.
- ``flow_key``: that key warped along the flow between the two photos. DIS estimates it directly from frame to key,
  which is better on ToonWorld than flows chained frame by frame.
- ``blended_keys``: all keys warped so and blended by their confidence, as the guide
  :class:`~animegen.data.keyframes.FlowKeys` does. The strongest baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from animegen.benchmarks.baselines import BestLookupTable
from animegen.data.keyframes import FlowKeys
from animegen.data.keyframes.carried import blended
from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.media.video.flow import EstimatedMotion, FlowEstimator
from animegen.nn.warp import backward_warp

NAMES = ("lut", "nearest_key", "flow_key", "blended_keys")
"""The baselines of :func:`keyframe_baselines`."""


class Stack:
    """Images in memory, uint8 (N, 3, H, W), as an image source."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Tensor:
        """Return image ``index`` as uint8 (3, H, W)."""
        return self.images[index]

    def name(self, index: int) -> str:
        """Return the number of the image as its name."""
        return f"frame-{index}"


def spread_keys(frames: int, count: int) -> list[int]:
    """Return ``count`` frame numbers: the middles of equal parts of a clip of ``frames`` frames."""
    if not 1 <= count <= frames:
        raise AnimegenError(f"A clip of {frames} frames cannot have {count} key frames: choose from 1 to {frames}.")
    return [(2 * k + 1) * frames // (2 * count) for k in range(count)]


def nearest_key(frame: int, keys: Sequence[int]) -> int:
    """Return the nearest key frame in time; of two at the same distance the earlier one."""
    return min(keys, key=lambda key: (abs(key - frame), key))


def fit_lut(photo: Tensor, keys: Mapping[int, Tensor]) -> BestLookupTable:
    """Return the colour table fitted to the photos of the key frames and their drawings."""
    numbers = _check(photo, keys)
    drawings = torch.stack([keys[n] for n in numbers])
    return BestLookupTable().fit(Stack(photo[numbers]), Stack(drawings))


def carry_keys(photo: Tensor, keys: Mapping[int, Tensor], flow: FlowEstimator | None = None) -> Tensor:
    """Return the clip of ``flow_key``.

    Args:
        photo: the clip, uint8 (T, 3, H, W).
        keys: drawings by frame number, uint8 (3, H, W).
        flow: an estimator; DIS by default.

    Returns:
        uint8 (T, 3, H, W). Key frames are unchanged.
    """
    numbers = _check(photo, keys)
    motion = EstimatedMotion(photo, flow)
    frames = []
    for t in range(len(photo)):
        key = nearest_key(t, numbers)
        if key == t:
            frames.append(keys[key])
        else:
            drawing = to_float(keys[key][None])
            frames.append(to_uint8(backward_warp(drawing, motion.flow(t, key)))[0])
    return torch.stack(frames)


def blend_keys(photo: Tensor, keys: Mapping[int, Tensor], flow: FlowEstimator | None = None) -> Tensor:
    """Return the clip of ``blended_keys``, uint8 (T, 3, H, W); see :func:`carry_keys`."""
    numbers = _check(photo, keys)
    guide = FlowKeys(flow=flow)
    drawings = torch.stack([keys[n] for n in numbers])
    guide.learn(photo[numbers], drawings, torch.ones_like(drawings[:, 0], dtype=torch.bool))
    frames = []
    for t, frame in enumerate(photo):
        carried = to_float(guide.carry(to_float(frame[None])))[None]
        frames.append(keys[t] if t in keys else to_uint8(blended(carried)[0])[0])
    return torch.stack(frames)


def keyframe_baselines(
    photo: Tensor, keys: Mapping[int, Tensor], flow: FlowEstimator | None = None
) -> dict[str, Tensor]:
    """Return the clips of the baselines in :data:`NAMES`.

    Args:
        photo: the clip, uint8 (T, 3, H, W).
        keys: drawings by frame number, uint8 (3, H, W); at least one.
        flow: estimator for ``flow_key`` and ``blended_keys``; DIS by default.

    Returns:
        {name: uint8 clip (T, 3, H, W)}.

    Raises:
        AnimegenError: if there are no keys, or a key is outside the clip or has another size.
    """
    numbers = _check(photo, keys)
    table = fit_lut(photo, keys)
    return {
        "lut": torch.cat([to_uint8(table(to_float(frame[None]))) for frame in photo]),
        "nearest_key": torch.stack([keys[nearest_key(t, numbers)] for t in range(len(photo))]),
        "flow_key": carry_keys(photo, keys, flow),
        "blended_keys": blend_keys(photo, keys, flow),
    }


def _check(photo: Tensor, keys: Mapping[int, Tensor]) -> list[int]:
    """Return the sorted numbers of the keys, if clip and keys belong together."""
    if photo.ndim != 4 or photo.shape[1] != 3 or photo.dtype != torch.uint8:
        raise AnimegenError(f"A clip must be uint8 (T, 3, H, W), not {photo.dtype} {tuple(photo.shape)}.")
    if not keys:
        raise AnimegenError("A clip without key frames cannot be stylised from them: give at least one.")
    for number, drawing in keys.items():
        if not 0 <= number < len(photo):
            raise AnimegenError(f"Key frame {number} is not in the clip, whose frames are 0 to {len(photo) - 1}.")
        if drawing.shape != photo.shape[1:] or drawing.dtype != torch.uint8:
            raise AnimegenError(
                f"The drawing of key frame {number} is {drawing.dtype} {tuple(drawing.shape)}, its photo torch.uint8"
                f" {tuple(photo.shape[1:])}: scale the drawing to its frame."
            )
    return sorted(keys)
