"""Temporal bilateral filter: motion-compensated denoising of clips."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from animegen.data.keyframes.project import Frames
from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.media.video.flow import DISFlow, FlowEstimator
from animegen.nn.warp import backward_warp

Tag = TypeVar("Tag")


class BilateralFilter:
    """Average each pixel along its motion over the frames before and after, weighted by colour similarity.

    Positions follow chained flows: ``q_(k+1) = q_k + flow(q_k)``. The pixel after k steps has the weight
    ``exp(-k^2 / (2 sigma_time^2)) * exp(-|c_k - c_0|^2 / (2 sigma_colour^2))``. Occluded pixels get small weights by
    their colour.

    The defaults are those of the released tool of Texler et al. 2020, in which the temporal weights of past frames are
    reversed.

    Args:
        radius: number of frames on each side.
        sigma_time: temporal standard deviation in frames.
        sigma_colour: standard deviation of RGB distances, in grey levels of 0 to 255.
        flow: optical flow estimator, by default DIS.

    Raises:
        AnimegenError: for invalid values.
    """

    def __init__(
        self,
        radius: int = 15,
        sigma_time: float = 5.0,
        sigma_colour: float = 27.6,
        flow: FlowEstimator | None = None,
    ) -> None:
        if radius < 0 or sigma_time <= 0 or sigma_colour <= 0:
            raise AnimegenError(
                "A temporal filter needs radius >= 0, sigma_time > 0 and sigma_colour > 0, not"
                f" {radius}, {sigma_time} and {sigma_colour}: correct them."
            )
        self.radius, self.sigma_time, self.sigma_colour = radius, sigma_time, sigma_colour
        self.flow = flow or DISFlow()

    def __call__(self, clip: Frames) -> FilteredClip:
        """Return the filtered clip of uint8 (3, H, W) frames, computed lazily."""
        return FilteredClip(self, clip)

    def stream(
        self, frames: Iterable[tuple[Tensor, Tag]], cuts: Collection[int] = (), first: int = 0
    ) -> Iterator[tuple[Tensor, Tag]]:
        """Yield filtered frames with a window of ``2 * radius + 1`` frames in memory and a delay of ``radius`` frames.

        The result equals that for the whole clip of each shot.

        Args:
            frames: (uint8 (3, H, W), tag) pairs; tags such as times are passed through.
            cuts: numbers of the first frames of shots, which are filtered separately.
            first: number of the first frame.
        """
        window = _Window(self)
        for number, (pixels, tag) in enumerate(frames, first):
            if number in cuts:
                yield from window.ready(ended=True)
                window = _Window(self)
            window.add(pixels, tag)
            yield from window.ready(ended=False)
        yield from window.ready(ended=True)

    def blend(self, clip: Frames, number: int, motion: Callable[[int, int], Tensor]) -> Tensor:
        """Return filtered frame ``number``, float (1, 3, H, W) in [-1, 1].

        Args:
            clip: uint8 (3, H, W) frames.
            number: number of the frame.
            motion: returns the flow (1, 2, H, W) between two neighbouring frames.
        """
        own = to_float(clip[number])[None]
        total, weights = own.clone(), torch.ones_like(own[:, :1])
        for step in (-1, 1):
            path = torch.zeros_like(own[:, :2])  # displacement since frame `number`
            for k in range(1, self.radius + 1):
                place = number + step * k
                if not 0 <= place < len(clip):
                    break
                path = path + backward_warp(motion(place - step, place), path)
                met = backward_warp(to_float(clip[place])[None], path)
                # Colours are in [-1, 1]: a grey level is 1/127.5.
                distance = ((met - own) * 127.5).square().sum(1, keepdim=True)
                weight = torch.exp(-distance / (2 * self.sigma_colour**2) - k**2 / (2 * self.sigma_time**2))
                total, weights = total + weight * met, weights + weight
        return total / weights


class FilteredClip:
    """A clip filtered by a :class:`BilateralFilter`, with caches of results and flows.

    Results take as much memory as the clip, flows eight bytes per pixel and direction for the frames in the window.
    """

    def __init__(self, filter_: BilateralFilter, clip: Frames) -> None:
        self.filter, self.clip = filter_, clip
        self._flows: dict[tuple[int, int], Tensor] = {}
        self._done: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.clip)

    def __getitem__(self, number: int) -> Tensor:
        if number not in self._done:
            reach = self.filter.radius + 1
            self._flows = {key: value for key, value in self._flows.items() if abs(key[0] - number) <= reach}
            self._done[number] = to_uint8(self.filter.blend(self.clip, number, self._motion)[0])
        return self._done[number]

    def _motion(self, first: int, second: int) -> Tensor:
        if (first, second) not in self._flows:
            a, b = (to_float(self.clip[n])[None] for n in (first, second))
            self._flows[first, second] = self.filter.flow(a, b)
        return self._flows[first, second]

    def forget(self, number: int) -> None:
        """Remove the result of a frame from the cache."""
        self._done.pop(number, None)


class _Window:
    """Sliding window over the frames of a shot."""

    def __init__(self, filter_: BilateralFilter) -> None:
        self.radius = filter_.radius
        self.filtered = FilteredClip(filter_, self)
        self.count = self.next = 0
        self._frames: dict[int, Tensor] = {}
        self._tags: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Tensor:
        return self._frames[number]

    def add(self, pixels: Tensor, tag: Any) -> None:
        """Add the next frame."""
        self._frames[self.count], self._tags[self.count] = pixels, tag
        self.count += 1

    def ready(self, ended: bool) -> Iterator[tuple[Tensor, Any]]:
        """Yield the frames whose neighbours are available; ``ended`` after the last frame of the shot."""
        while self.next < self.count and (ended or self.next + self.radius < self.count):
            yield self.filtered[self.next], self._tags.pop(self.next)
            self.filtered.forget(self.next)
            self._frames.pop(self.next - self.radius, None)
            self.next += 1
