"""Which frame to draw next: the one whose look the drawn ones cover least."""

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
"""Shorter side in pixels at which frames are compared."""
PATCH, STEP = 12, 8
"""Side of the patches that are compared and their distance, at that size."""
DIMENSIONS = 24
"""Principal components of the patches that are compared."""


class Suggestion(NamedTuple):
    """A frame worth drawing.

    Attributes:
        number: of the frame.
        left: mean distance of the clip's patches to the nearest drawn one after this frame (and those suggested before
            it) is drawn, as a share of the distance before the first suggestion.
    """

    number: int
    left: float


def suggest_keys(
    clip: Frames, keys: Sequence[int] = (), count: int = 3, candidates: int = 48, patches: int = 160
) -> list[Suggestion]:
    """Suggest frames to draw, each the one that brings the drawn patches nearest to all patches of the clip.

    What the network has to draw is made of patches; where nothing like a patch was drawn, it guesses. So frames are
    compared patch by patch (colours, reduced to principal components), and a frame is worth as much as it
    lowers the mean distance of all patches to their nearest drawn one (greedy facility location).

    Args:
        clip: uint8 (3, H, W) frames.
        keys: numbers of the frames that are drawn.
        count: number of suggestions.
        candidates: so many frames, evenly spread, are looked at besides the keys.
        patches: patches per frame, evenly spread.

    Returns:
        suggestions, the most useful first; fewer if there are fewer frames.

    Raises:
        AnimegenError: for a key that is not in the clip.
    """
    outside = [n for n in keys if not 0 <= n < len(clip)]
    if outside or count < 1:
        raise AnimegenError(
            f"Suggestions need keys from 0 to {len(clip) - 1} and count >= 1, not {list(keys)} and {count}."
        )
    numbers = sorted({*keys, *spread(candidates, len(clip))})
    described = _reduced([_patches(clip[n], patches) for n in numbers])
    everything = torch.cat(described)
    # Distance (frames, patches of the whole clip) to the nearest patch of each frame.
    nearest = torch.stack([torch.cdist(everything, frame).amin(1) for frame in described])
    drawn = [numbers.index(n) for n in keys]
    # Without any drawing, a patch is as far from being covered as from the mean of all.
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
    picture = to_float(frame)[None]
    scale = SIDE / min(picture.shape[-2:])
    if scale < 1:
        sides = [round(side * scale) for side in picture.shape[-2:]]
        picture = F.interpolate(picture, sides, mode="bilinear", antialias=True)
    picture = F.avg_pool2d(picture, 2)
    rows = F.unfold(picture, min(PATCH // 2, *picture.shape[-2:]), stride=STEP // 2)[0].T
    return rows[spread(count, len(rows))]


def _reduced(frames: list[Tensor]) -> list[Tensor]:
    rows = torch.cat(frames)
    rows = rows - rows.mean(0)
    covariance = rows.T @ rows / len(rows)
    directions = torch.linalg.eigh(covariance).eigenvectors[:, -DIMENSIONS:]
    return list((rows @ directions).split([len(frame) for frame in frames]))
