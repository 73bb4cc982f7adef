"""Clips between images: any size, any length, any number of key frames, by models with narrower limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.images import scaled, to_float, to_uint8
from animegen.nn.precision import inference
from animegen.tasks.protocols import ClipGenerator, Sampling


class ClipDrawer:
    """Draws clips through key frames with a model.

    Images that are larger than the model's ``max_size`` are drawn smaller and scaled up again; the given ones stand
    in the clip as they are. Gaps that are longer than ``max_frames`` are cut in two: the frame in the middle of the
    longest clip that the model supports is drawn first, and so on in both halves.

    Args:
        model: the model in eval mode, on ``device``.
        device: device of the computation.
        dtype: autocast type, ``None`` for full precision.
        sampling: options of the sampling.
        samples: number of clips to draw.
    """

    def __init__(
        self,
        model: ClipGenerator,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        sampling: Sampling | None = None,
        samples: int = 1,
    ) -> None:
        self.model, self.device, self.dtype = model, torch.device(device), dtype
        self.sampling, self.samples = sampling or Sampling(), samples
        self.longest: int | None = getattr(model, "max_frames", None)
        if self.longest is not None and self.longest < 3:
            raise AnimegenError(f"{type(model).__name__} draws clips of {self.longest} frames: there is none between.")
        self.largest: tuple[int, int] | None = getattr(model, "max_size", None)
        #: What the last call did to the images and gaps, in sentences.
        self.notes: list[str] = []
        self._calls = 0

    def __call__(self, keys: Sequence[Tensor], frames: int) -> Tensor:
        """Draw clips, uint8 ``(samples,T,3,H,W)``.

        Args:
            keys: two or more images of one size, uint8 ``(3,H,W)``.
            frames: number from one of them to the next, both included.

        Raises:
            AnimegenError: if the memory does not suffice, or the model returns invalid images.
        """
        self.notes, self._calls = [], 0
        height, width = keys[0].shape[1:]
        small = self._fitting(height, width)
        result = torch.empty(self.samples, (len(keys) - 1) * (frames - 1) + 1, 3, height, width, dtype=torch.uint8)
        try:
            with inference(self.device, self.dtype):
                given = [scaled(to_float(key[None].to(self.device)), small) for key in keys]
                clip = self._chain([key.expand(self.samples, -1, -1, -1) for key in given], frames - 1)
                # One frame at a time: the float values of a whole clip in its full size are four times as large.
                for target, frame in zip(result.flatten(0, 1), clip.flatten(0, 1), strict=True):
                    target.copy_(to_uint8(scaled(frame[None], (height, width))[0]))
        except torch.OutOfMemoryError as error:
            raise AnimegenError(
                f"The memory of the device is too small for {self.samples} clips of {width}x{height}: use fewer"
                " samples=, smaller images, precision=bf16, or device=cpu."
            ) from error
        if not clip.isfinite().all():
            raise AnimegenError("The model draws no image (NaN): use another checkpoint, or precision=fp32.")
        for number, key in enumerate(keys):
            result[:, number * (frames - 1)] = key.cpu()
        return result

    def _fitting(self, height: int, width: int) -> tuple[int, int]:
        """Return the size in which the model draws images of this size: the same shape, within its largest."""
        if self.largest is None:
            return height, width
        scale = min(self.largest[0] / height, self.largest[1] / width, 1.0)
        small = (max(1, round(height * scale)), max(1, round(width * scale)))
        if scale < 1:
            self.notes.append(
                f"drawn at {small[1]}x{small[0]} and scaled to {width}x{height}, since the model supports images of up"
                f" to {self.largest[1]}x{self.largest[0]}"
            )
        return small

    def _chain(self, keys: list[Tensor], gap: int) -> Tensor:
        """Return the clips through all key frames; neighbours lie ``gap`` frames apart."""
        total = gap * (len(keys) - 1) + 1
        if len(keys) > 2 and (self.longest is None or total <= self.longest):
            return self._draw(keys[0], keys[-1], total, {n * gap: key for n, key in enumerate(keys[1:-1], 1)})
        parts = [self._stretch(first, last, gap) for first, last in pairwise(keys)]
        # A key frame ends one stretch and begins the next: it stands in the clip once.
        return torch.cat([parts[0], *(part[:, 1:] for part in parts[1:])], 1)

    def _stretch(self, first: Tensor, last: Tensor, gap: int) -> Tensor:
        """Return the clips (B,gap + 1,3,h,w) between two frames."""
        if gap < 2:
            return torch.stack([first, last], 1)
        if self.longest is None or gap < self.longest:
            return self._draw(first, last, gap + 1)
        note = f"gaps of more than {self.longest - 1} frames were cut in two"
        if note not in self.notes:
            self.notes.append(note)
        half = (self.longest - 1) // 2
        middle = self._draw(first, last, 2 * half + 1)[:, half]
        parts = self._stretch(first, middle, gap // 2), self._stretch(middle, last, gap - gap // 2)
        return torch.cat([parts[0], parts[1][:, 1:]], 1)

    def _draw(self, first: Tensor, last: Tensor, frames: int, keys: dict[int, Tensor] | None = None) -> Tensor:
        # Another seed for every segment, so that the segments do not start from the same noise.
        sampling = replace(self.sampling, seed=self.sampling.seed + self._calls * self.samples)
        self._calls += 1
        more: dict[str, Any] = {"keys": keys} if keys else {}
        return self.model.generate(first, last, frames, sampling=sampling, **more)
