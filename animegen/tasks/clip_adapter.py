"""Adapter from frame interpolation models to clip generators."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from animegen.tasks.protocols import Interpolator, Sampling


class InterpolatorAsClipGenerator:
    """A deterministic :class:`~animegen.tasks.protocols.ClipGenerator` that interpolates at equidistant times.

    Args:
        model: the interpolator.
    """

    def __init__(self, model: Interpolator) -> None:
        self.model, self.size_divisor = model, model.size_divisor

    def generate(
        self,
        first: Tensor,
        last: Tensor,
        frames: int,
        sampling: Sampling | None = None,
        keys: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Return a clip, see :meth:`ClipGenerator.generate <animegen.tasks.protocols.ClipGenerator.generate>`.

        ``sampling`` has no effect.
        """
        clip = torch.empty((len(first), frames, *first.shape[1:]), device=first.device, dtype=first.dtype)
        given = {0: first, **(keys or {}), frames - 1: last}
        for t, frame in given.items():
            clip[:, t] = frame
        for begin, end in pairwise(sorted(given)):
            encoded = self.model.encode_pair(given[begin], given[end])
            for t in range(begin + 1, end):
                time = first.new_full((len(first),), (t - begin) / (end - begin))
                clip[:, t] = self.model.synthesize(encoded, time)
        return clip
