"""Sources of short windows of clips: ToonWorld with its exact motion, and moving crops of stills."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.data.sources import ImageSource, next_good, prepare_source
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError
from animegen.media.images import to_float, to_uint8
from animegen.toonworld import VISIBLE, Scene, ToonWorldImages, truth
from animegen.toonworld.scene import Size

log = logging.getLogger(__name__)

Draw = Callable[[int, str], int]
"""``draw(count, purpose)`` returns a random integer in [0, count) for the sample."""


@runtime_checkable
class WindowSource(Protocol):
    """Numbered collection of clips without cuts, read in windows."""

    @property
    def clips(self) -> int:
        """The number of clips."""
        ...

    def clip_name(self, index: int) -> str:
        """Return the name of a clip: stable and unique within the source."""
        ...

    def window(self, index: int, length: int, size: int, draw: Draw | None) -> tuple[int, Tensor]:
        """Return the number of the first frame, and frames uint8 ``(length,3,H,W)`` with sides of at least ``size``.

        Without ``draw`` the window is in the middle of the clip.
        """
        ...


@runtime_checkable
class MotionSource(WindowSource, Protocol):
    """Clips with known motion."""

    def motion(self, index: int, now: int, then: int) -> tuple[Tensor, Tensor]:
        """Return the flow ``(2,H,W)`` from frame ``now`` to ``then``, and its validity, bool ``(1,H,W)``."""
        ...


class ToonWorldWindows(ToonWorldImages):
    """Consecutive frames from the middle of ToonWorld clips in one style, with their exact motion.

    As a source of images it has ``scenes * length`` images.

    Args:
        look: ``photo``, or a style.
        length: frames per scene, out of ``frames``.
        motion: compute the motion in :meth:`prepare`.

    Other arguments are those of :class:`~animegen.toonworld.ToonWorldImages`.
    """

    def __init__(
        self,
        look: str,
        split: str = "train",
        scenes: int = 64,
        length: int = 6,
        size: Size = 128,
        first_scene: int = 0,
        seed: int = 0,
        cache: str | Path = "memory",
        workers: int = 0,
        frames: int = 24,
        speed: float | None = None,
        motion: bool = False,
    ) -> None:
        super().__init__(
            look,
            split,
            scenes,
            frames_per_scene=length,
            size=size,
            first_scene=first_scene,
            seed=seed,
            cache=cache,
            workers=workers,
            frames=frames,
            speed=speed,
        )
        first = (frames - length) // 2
        self.times = list(range(first, first + length))
        self.length = length
        self._with_motion = motion
        self._labels: list[np.ndarray] = []
        self._poses: list[np.ndarray] = []
        self._seen: list[dict[tuple[int, int], np.ndarray]] = []

    @property
    def clips(self) -> int:
        """The number of scenes."""
        return len(self._arguments)

    def clip_name(self, index: int) -> str:
        """Return a stable name such as ``train-0003-photo``."""
        return f"{self.split}-{self._arguments[index]['index']:04d}-{self.look}"

    def in_look(self, look: str) -> ToonWorldWindows:
        """Return the same frames in another look."""
        settings = {name: value for name, value in self._settings.items() if name not in ("frames_per_scene", "hold")}
        return ToonWorldWindows(look, length=self.length, **settings)

    def window(self, index: int, length: int, size: int, draw: Draw | None) -> tuple[int, Tensor]:
        """Return frames; see :class:`WindowSource`."""
        places = places_in(self.length, length, self.clip_name(index))
        first = draw(places, "start") if draw else (places - 1) // 2
        frames = [self.image(index * self.length + first + t) for t in range(length)]
        return first, torch.stack(frames)

    def motion(self, index: int, now: int, then: int) -> tuple[Tensor, Tensor]:
        """Return the exact flow, not valid at borders between parts; see :class:`MotionSource`."""
        self._prepare_motion()
        poses = self._poses[index]
        flow = torch.from_numpy(truth.flow(self._labels[index][now], poses[now], poses[then]))
        bits = self._seen[index][now, then]
        height, width = flow.shape[-2:]
        seen = np.unpackbits(bits, count=height * width).reshape(1, height, width).astype(bool)
        return flow, torch.from_numpy(seen)

    def prepare(self) -> None:
        """Draw the frames and compute their motion."""
        super().prepare()
        if self._with_motion:
            self._prepare_motion()

    def _prepare_motion(self) -> None:
        if self._labels:
            return
        log.info("computing the motion of %d ToonWorld scenes", self.clips)
        for arguments in self._arguments:
            scene = Scene(**arguments)
            labels = [scene.labels(t) for t in self.times]
            seen = {}
            for now, start in enumerate(self.times):
                for then in range(now):
                    visible = scene.visibility(start, self.times[then]) == VISIBLE
                    seen[now, then] = np.packbits(visible)
            self._labels.append(np.stack(labels))
            self._poses.append(np.stack([scene.poses(t) for t in self.times]))
            self._seen.append(seen)


def in_looks(source: ToonWorldWindows, looks: Sequence[str]) -> list[ToonWorldWindows]:
    """Return the same windows in each of several looks.

    Raises:
        AnimegenError: for an empty or repeated look.
    """
    if not looks or len(set(looks)) < len(looks):
        raise AnimegenError(f"data.styles={list(looks)} must list at least one look, each once.")
    return [source if look == source.look else source.in_look(look) for look in looks]


class MovingStills:
    """Smooth pans and zooms over stills, as clips.

    Real samples for a temporal discriminator where a style has stills but no videos (as in the training of TecoGAN,
    Chu et al. 2020).

    Args:
        source: the stills.
        reach: shorter side of the scaled stills relative to the window; at least 1.
        pan: largest displacement of the window per 6 frames, relative to its side.
        zoom: largest relative change of its size per 6 frames.
    """

    def __init__(self, source: ImageSource, reach: float = 1.5, pan: float = 0.2, zoom: float = 0.1) -> None:
        if reach < 1 or not 0 <= pan <= 1 or not 0 <= zoom < 1:
            raise AnimegenError(
                f"MovingStills needs reach >= 1, pan from 0 to 1 and zoom from 0 to below 1, not {reach}, {pan} and"
                f" {zoom}."
            )
        self.source, self.reach, self.pan, self.zoom = source, reach, pan, zoom

    @property
    def clips(self) -> int:
        """The number of stills."""
        return len(self.source)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def skipped(self) -> int:
        """Number of broken files met so far."""
        return getattr(self.source, "skipped", 0)

    def clip_name(self, index: int) -> str:
        """Return the name of the still."""
        return self.source.name(index)

    name = clip_name

    def image(self, index: int) -> Tensor:
        """Return the still itself."""
        return self.source.image(index)

    def prepare(self) -> None:
        """Prepare the source."""
        prepare_source(self.source)

    def window(self, index: int, length: int, size: int, draw: Draw | None) -> tuple[int, Tensor]:
        """Return frames (length,3,size,size) of a window with constant speed and zoom."""
        still = scale_short_side(next_good([self.source], index)[0], math.ceil(size * self.reach))
        height, width = still.shape[-2:]

        def number(purpose: str) -> float:  # in [-1, 1]
            return 0.0 if draw is None else draw(2**16, purpose) / 2**15 - 1

        share = torch.linspace(-0.5, 0.5, length) * (length / 6)
        scale = size / 2 * (1 + self.zoom * number("zoom") * share)
        # The centre of the window, such that it stays inside the still.
        ways = [share * self.pan * size * number(axis) for axis in ("pan y", "pan x")]
        rows, columns = (
            _centred(side, scale, way, number(axis))
            for side, way, axis in ((height, ways[0], "row"), (width, ways[1], "column"))
        )
        grid = (torch.arange(size) - (size - 1) / 2) / (size / 2)
        y = rows[:, None] + scale[:, None] * grid
        x = columns[:, None] + scale[:, None] * grid
        places = torch.stack(
            [
                (2 * x / (width - 1) - 1)[:, None, :].expand(-1, size, -1),
                (2 * y / (height - 1) - 1)[:, :, None].expand(-1, -1, size),
            ],
            -1,
        )
        frames = F.grid_sample(
            to_float(still)[None].expand(length, -1, -1, -1), places, "bilinear", "border", align_corners=True
        )
        return 0, to_uint8(frames)


def _centred(side: int, scale: Tensor, way: Tensor, choice: float) -> Tensor:
    """Return the window's centre (T,) along an axis of ``side`` pixels; ``choice`` in [-1,1] selects the offset."""
    half = scale.max() + way.abs().max()
    room = max(float((side - 1) / 2 - half), 0.0)
    return (side - 1) / 2 + choice * room + way


def places_in(available: int, length: int, name: str) -> int:
    """Return the number of positions of a window in a clip.

    Raises:
        AnimegenError: if the clip is too short.
    """
    if available < length:
        raise AnimegenError(
            f"The clip '{name}' has {available} frames, too few for windows of {length}: set a smaller data.length."
        )
    return available - length + 1


def named_windows(source: Any, what: str) -> WindowSource:
    """Return ``source`` after checking that it is a :class:`WindowSource`.

    Raises:
        AnimegenError: if not.
    """
    if not isinstance(source, WindowSource):
        raise AnimegenError(
            f"'{what}' of a view of styled clips must be a source of windows, such as"
            f" animegen.data.clips.ToonWorldWindows, VideoWindows or MovingStills, not {type(source).__name__}."
        )
    return source
