"""A film in slow motion: the same frames, each shown for longer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from torch import Tensor

from animegen.media.video.frames import FrameReader, Original


class Slowed(FrameReader):
    """A film whose every time is multiplied; there is no sound that fits it.

    Args:
        reader: the film.
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
        """What could not be read of the film."""
        return self.reader.problems

    @property
    def end(self) -> Fraction:
        """When the frame that was given last ceases to be shown."""
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
        """Yield frames with what the file has of them; see :meth:`FrameReader.originals`."""
        for original, time in self.reader.originals(None if start is None else Fraction(start) / self.times):
            yield original, time * self.times

    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time; see :meth:`FrameReader.at`."""
        return self.reader.at(Fraction(time) / self.times)
