"""A part of a video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from torch import Tensor

from animegen.errors import AnimegenError
from animegen.media.video.frames import FrameReader, Original


class Excerpt(FrameReader):
    """The frames of a video that appear in a time range; times count from its start.

    Args:
        reader: the video.
        start: in seconds, rounded to the video's unit of time.
        stop: in seconds; ``None``: the end of the video.

    Raises:
        AnimegenError: if no frame appears in the range.
    """

    def __init__(self, reader: FrameReader, start: Fraction, stop: Fraction | None = None) -> None:
        base = reader.info.time_base
        self.reader, self.path, self.stop = reader, reader.path, stop
        self.start = round(start / base) * base
        ends = [end for end in (reader.info.duration, stop) if end is not None]
        duration = min(ends) - self.start if ends else None
        self.info = replace(reader.info, duration=duration, frames=None)
        if next(iter(self.frames()), None) is None:
            until = "" if stop is None else f" and before end={float(stop):g}"
            raise AnimegenError(f"'{self.path}' has no frame from start={float(start):g}{until} on: change the range.")

    @property
    def problems(self) -> list[str]:
        """Parts of the video that could not be read."""
        return self.reader.problems

    @property
    def end(self) -> Fraction:
        """Time in seconds at which the last frame that was read stops being shown."""
        return (self.reader.end if self.stop is None else min(self.reader.end, self.stop)) - self.start

    def frames(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Tensor, Fraction]]:
        """Yield frames; see :meth:`FrameReader.frames`."""
        stops = [end for end in (self.stop, None if stop is None else self.start + Fraction(stop)) if end is not None]
        for pixels, time in self.reader.frames(self.start + Fraction(start or 0), min(stops, default=None)):
            yield pixels, time - self.start

    def originals(self, start: Fraction | float | None = None) -> Iterator[tuple[Original, Fraction]]:
        """Yield frames in their stored form; see :meth:`FrameReader.originals`."""
        for original, time in self.reader.originals(self.start + Fraction(start or 0)):
            if self.stop is not None and time >= self.stop:
                return
            yield original, time - self.start

    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time; see :meth:`FrameReader.at`."""
        return self.reader.at(self.start + Fraction(time))
