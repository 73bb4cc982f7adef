"""Synthetic videos with known cuts, held drawings, flashes, timestamps and sound."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from animegen.errors import AnimegenError
from animegen.toonworld.palettes import LOOKS
from animegen.toonworld.scene import Scene, Size, check_choice, frame_shape
from animegen.toonworld.streams import Stream
from animegen.toonworld.truth import HIDDEN


class Film:
    """A sequence of scenes in one look; shot k shows scene ``first_scene + k``.

    The sound is a sine wave that rises by a quarter of an octave with each shot, which makes its synchronisation
    measurable.

    Args:
        shots: length of each shot in frames.
        look: one of ``LOOKS``.
        size: see :class:`Scene`, like ``seed``, ``split``, ``speed`` and ``hold``.
        first_scene: index of the first shot's scene.
        fps: mean frame rate in Hz.
        flash_count: number of frames with a white flash, never next to a cut.
        variable_rate: draw the duration of each frame from 1, 2 and 3 half frames.
        tone: frequency of the first shot in Hz.

    Attributes:
        cuts: number of the first frame of each shot but the first.
        flashes: numbers of the frames with a flash.

    Raises:
        AnimegenError: for an unknown choice or invalid numbers.
    """

    FLASH = 0.8  # weight of white in a flash

    def __init__(
        self,
        shots: Sequence[int] = (24, 24, 24),
        look: str = "meadow",
        size: Size = 128,
        seed: int = 0,
        split: str = "train",
        first_scene: int = 0,
        speed: float | None = None,
        hold: int | None = None,
        fps: float = 24.0,
        flash_count: int = 0,
        variable_rate: bool = False,
        tone: float = 220.0,
    ) -> None:
        check_choice("look", look, LOOKS)
        self.shape = frame_shape(size)
        if not shots or min(shots) < 1 or fps <= 0:
            raise AnimegenError(
                "A ToonWorld video needs shots of 1 or more frames each and fps > 0: correct these values."
            )
        self.look, self.fps, self.tone = look, fps, tone
        ends = list(accumulate(shots))
        self.starts = [0, *ends[:-1]]
        self.cuts = self.starts[1:]
        self._length = ends[-1]
        self._scenes: list[dict[str, Any]] = [
            {
                "seed": seed,
                "split": split,
                "index": first_scene + k,
                "size": size,
                "frames": n,
                "speed": speed,
                "hold": hold,
            }
            for k, n in enumerate(shots)
        ]
        self._open: dict[int, Scene] = {}
        stream = Stream(seed, split, first_scene, "film")
        calm = [n for n in range(2, self._length - 2) if all(abs(n - cut) > 2 for cut in self.cuts)]
        if flash_count > len(calm):
            raise AnimegenError(f"The video can hold {len(calm)} flashes, not {flash_count}: lower flash_count.")
        self.flashes = sorted(calm.pop(stream.below(len(calm))) for _ in range(flash_count))
        steps = [stream.pick((1, 2, 3)) if variable_rate else 2 for _ in range(self._length)]
        self.durations = np.array(steps) / (2 * fps)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.frame(n) for n in range(len(self)))

    def place(self, n: int) -> tuple[int, int]:
        """Return the shot of frame n and the frame's number within the shot."""
        if not 0 <= n < len(self):
            raise IndexError(f"frame {n} of {len(self)}")
        shot = bisect_right(self.starts, n) - 1
        return shot, n - self.starts[shot]

    def scene(self, shot: int) -> Scene:
        """Return the scene of a shot. The last two are cached."""
        if shot not in self._open:
            if len(self._open) > 1:
                self._open.pop(next(iter(self._open)))
            self._open[shot] = Scene(**self._scenes[shot])
        return self._open[shot]

    def frame(self, n: int) -> np.ndarray:
        """Return frame n as (H, W, 3) uint8 RGB."""
        shot, t = self.place(n)
        scene = self.scene(shot)
        image = scene.photo(t) if self.look == "photo" else scene.anime(t, self.look)
        if n in self.flashes:
            image = np.rint(image + self.FLASH * (255.0 - image)).astype(np.uint8)
        return image

    def timestamps(self) -> np.ndarray:
        """Return the start time (N,) float64 of each frame in seconds, from 0."""
        return np.concatenate([[0.0], np.cumsum(self.durations)[:-1]])

    def audio(self, rate: int = 16000) -> np.ndarray:
        """Return the sound (samples,) float32 in [-1, 1] at ``rate`` Hz, of the duration of the video."""
        seconds = np.arange(round(float(self.durations.sum()) * rate)) / rate
        cut_times = self.timestamps()[self.cuts]
        shot = np.searchsorted(cut_times, seconds, side="right")
        frequency = self.tone * 2.0 ** (shot / 4)
        return (0.25 * np.sin(2 * np.pi * np.cumsum(frequency) / rate)).astype(np.float32)

    def flow(self, n: int, n2: int) -> np.ndarray:
        """Return the true flow (2, H, W) float32 from frame n to n2 in pixels; zero across a cut."""
        (shot, t), (shot2, t2) = self.place(n), self.place(n2)
        if shot != shot2:
            return np.zeros((2, *self.shape), np.float32)
        return self.scene(shot).flow(t, t2)

    def visibility(self, n: int, n2: int) -> np.ndarray:
        """Return (H, W) uint8 on frame n's grid (0 hidden, 1 border, 2 visible in n2); all hidden across a cut."""
        (shot, t), (shot2, t2) = self.place(n), self.place(n2)
        if shot != shot2:
            return np.full(self.shape, HIDDEN, np.uint8)
        return self.scene(shot).visibility(t, t2)
