"""Slow motion: the same frames, each shown for longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from torch import Tensor

from animegen.media.video.frames import FrameReader, Original


class Slowed(FrameReader):
    """A video with all times multiplied, without sound.

    Args:
        reader: the video.
        times: how many times as long it is to last.
    """

    def __init__(self, reader: FrameReader, times: Fraction) -> None:
        self.reader, self.times = reader, times
        self.path = reader.path
        info = reader.info
        self.info = replace(
            info,
            fps=info.fps / times,
            # One over a whole number, as video files want it: all times are multiples of that, too.
            time_base=Fraction(1, (info.time_base * times).denominator),
            duration=None if info.duration is None else info.duration * times,
            has_audio=False,
        )

    @property
    def problems(self) -> list[str]:
        """Parts of the video that could not be read."""
        return self.reader.problems

    @property
    def end(self) -> Fraction:
        """Time in seconds at which the last frame that was read stops being shown."""
        return self.reader.end * self.times

    def frames(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Tensor, Fraction]]:
        """Yield frames; see :meth:`FrameReader.frames`."""
        for pixels, time in self.reader.frames(
            *(None if t is None else Fraction(t) / self.times for t in (start, stop))
        ):
            yield pixels, time * self.times

    def originals(self, start: Fraction | float | None = None) -> Iterator[tuple[Original, Fraction]]:
        """Yield frames in their stored form; see :meth:`FrameReader.originals`."""
        for original, time in self.reader.originals(None if start is None else Fraction(start) / self.times):
            yield original, time * self.times

    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time; see :meth:`FrameReader.at`."""
        return self.reader.at(Fraction(time) / self.times)
