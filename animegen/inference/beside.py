"""The input and the output of a model side by side, as ``compare=input`` shows them."""

from __future__ import annotations

import torch
from torch import Tensor

from animegen.media.photos import Photo
from animegen.media.video.frames import VideoInfo


def beside(left: Tensor, right: Tensor) -> Tensor:
    """Return two frames ``(3,H,W)`` or ``(4,H,W)`` of the same type and size side by side, the first to the left.

    Transparency is kept if both have it.
    """
    channels = min(len(left), len(right))
    return torch.cat([left[:channels], right[:channels]], dim=2)


def photo_beside(photo: Photo, drawn: Tensor) -> Photo:
    """Return a photo with its drawing to the right; transparency is that of the photo in both halves."""
    alpha = None if photo.alpha is None else photo.alpha.repeat(1, 2)
    return Photo(beside(photo.pixels, drawn), alpha, photo.exif, photo.profile)


def doubled(info: VideoInfo) -> VideoInfo:
    """Return the facts of a video whose frames show two of another side by side."""
    return info.resized(2 * info.width, info.height)
