"""Suggestion of key frames that best cover the appearance of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.keyframes.project import Frames, spread
from animegen.errors import AnimegenError
from animegen.media.images import to_float

SIDE = 128
"""Shorter side in pixels of the compared frames."""
PATCH, STEP = 12, 8
"""Side and stride of the compared patches, at that size."""
DIMENSIONS = 24
"""Number of principal components of the compared patches."""


class Suggestion(NamedTuple):
    """A suggested key frame.

    Attributes:
        number: number of the frame.
        left: mean distance of the clip's patches to the nearest drawn patch with this and the previous suggestions,
            relative to that without suggestions.
    """

    number: int
    left: float


def suggest_keys(
    clip: Frames, keys: Sequence[int] = (), count: int = 3, candidates: int = 48, patches: int = 160
) -> list[Suggestion]:
    """Suggest key frames by greedy facility location on patches.

    Each suggestion minimises the mean distance of all patches of the clip to the nearest drawn patch. Patches are
    compared by colours, reduced to principal components.

    Args:
        clip: uint8 (3, H, W) frames.
        keys: numbers of the drawn frames.
        count: number of suggestions.
        candidates: number of evenly spaced frames considered besides the keys.
        patches: number of evenly spaced patches per frame.

    Returns:
        Suggestions in order of usefulness; fewer if there are fewer frames.

    Raises:
        AnimegenError: for a key that is not in the clip, or count < 1.
    """
    outside = [n for n in keys if not 0 <= n < len(clip)]
    if outside or count < 1:
        raise AnimegenError(
            f"Suggestions need keys from 0 to {len(clip) - 1} and count >= 1, not {list(keys)} and {count}."
        )
    numbers = sorted({*keys, *spread(candidates, len(clip))})
    described = _reduced([_patches(clip[n], patches) for n in numbers])
    everything = torch.cat(described)
    # Distance of all patches to the nearest patch of each frame, (frames, all patches).
    nearest = torch.stack([torch.cdist(everything, frame).amin(1) for frame in described])
    drawn = [numbers.index(n) for n in keys]
    # Without drawings, use the distance to the mean of all patches.
    covered = nearest[drawn].amin(0) if drawn else everything.sub(everything.mean(0)).norm(dim=1)
    before = covered.mean().clamp_min(1e-12)
    found: list[Suggestion] = []
    for _ in range(min(count, len(numbers) - len(drawn))):
        left = torch.minimum(nearest, covered).mean(1)
        left[drawn] = torch.inf
        best = int(left.argmin())
        drawn.append(best)
        covered = torch.minimum(covered, nearest[best])
        found.append(Suggestion(numbers[best], float(left[best] / before)))
    return found


def _patches(frame: Tensor, count: int) -> Tensor:
    """Return up to ``count`` patches of a frame as rows (N, 3 * PATCH * PATCH / 4)."""
    image = to_float(frame)[None]
    scale = SIDE / min(image.shape[-2:])
    if scale < 1:
        sides = [round(side * scale) for side in image.shape[-2:]]
        image = F.interpolate(image, sides, mode="bilinear", antialias=True)
    image = F.avg_pool2d(image, 2)
    rows = F.unfold(image, min(PATCH // 2, *image.shape[-2:]), stride=STEP // 2)[0].T
    return rows[spread(count, len(rows))]


def _reduced(frames: list[Tensor]) -> list[Tensor]:
    rows = torch.cat(frames)
    rows = rows - rows.mean(0)
    covariance = rows.T @ rows / len(rows)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -DIMENSIONS:]
    return list((rows @ directions).split([len(frame) for frame in frames]))
