"""Conversion of clips (B,T,C,H,W) to frames (B*T,C,H,W), and back.

Clips of one frame, with which a video is drawn, keep the memory format ``channels_last`` of their maps, and nothing is
copied. With ``flatten(0, 1)`` and ``torch.stack`` the next convolution would get a copy in the usual order, in which
it takes up to twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_frames(clips: Tensor) -> Tensor:
    """Return the frames (B*T,C,H,W) of clips (B,T,C,H,W)."""
    return clips.squeeze(1) if clips.shape[1] == 1 else clips.flatten(0, 1)


def to_clips(frames: Tensor, length: int) -> Tensor:
    """Return frames (B*T,C,H,W) as clips (B,T,C,H,W) of ``length`` frames."""
    return frames.unsqueeze(1) if length == 1 else frames.unflatten(0, (-1, length))


def stack_frames(frames: Sequence[Tensor]) -> Tensor:
    """Return clips (B,T,C,H,W) of T frames (B,C,H,W)."""
    return frames[0].unsqueeze(1) if len(frames) == 1 else torch.stack(list(frames), 1)
