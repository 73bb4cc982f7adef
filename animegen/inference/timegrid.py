"""Times of the output frames, and their content: a drawing, or an interpolation between two.

Times are exact fractions of a second; drawings are opaque objects, so that this module is independent of pixels and
networks. A few frames are kept at a time, however long a drawing is held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Generic, TypeVar

from animegen.errors import AnimegenError

Frame = TypeVar("Frame")

#: Source frames over which ``holds=smooth`` spreads the motion at most: a drawing that is held longer is a pause.
LONGEST_HOLD = 6
#: Largest ratio of the times of two motions that follow each other, for one to tell how the other goes on.
LARGEST_RATIO = 2


@dataclass(frozen=True)
class Neighbour(Generic[Frame]):
    """The drawing before or after a pair, with a motion between it and the pair that no cut and no hold interrupts.

    Attributes:
        frame: the drawing.
        length: time of that motion, in units of the time from the first to the last drawing of the pair.
    """

    frame: Frame
    length: float


@dataclass(frozen=True)
class Between(Generic[Frame]):
    """One frame of the new video.

    Attributes:
        time: its presentation time in seconds.
        first: the drawing before it.
        last: the drawing after it; ``None`` where ``first`` is shown as it is.
        t: relative time between the two, in (0, 1); 0 where ``first`` is shown as it is.
        before: the drawing before ``first``, if it tells how the motion began.
        after: the drawing after ``last``, if it tells how the motion goes on.
    """

    time: Fraction
    first: Frame
    last: Frame | None = None
    t: Fraction = Fraction(0)
    before: Neighbour[Frame] | None = None
    after: Neighbour[Frame] | None = None


class Grid:
    """The times at which frames are shown.

    Args:
        factor: number of frames per source frame, evenly spread over the time for which it is shown, so
            that a variable rate stays one. With 5/2 every fifth frame is one of the source, each second of it; or
        fps: frames per second, from the time of the source's first frame on.

    Raises:
        AnimegenError: unless exactly one is given, and makes sense.
    """

    def __init__(self, factor: Fraction | int | None = None, fps: Fraction | None = None) -> None:
        if (factor is None) == (fps is None):
            raise AnimegenError("Give either factor= (frames per frame) or fps= (frames per second), not both or none.")
        if factor is not None and not 1 < factor <= 1000:
            raise AnimegenError(f"factor={factor} makes no new frame: use a number above 1, like 2 or 2.5.")
        if fps is not None and not 0 < fps <= 1000:
            raise AnimegenError(f"fps={fps} is not possible: give a number like 60, or a fraction like 60000/1001.")
        self.factor, self.fps = None if factor is None else Fraction(factor), fps

    def times(self, number: int, start: Fraction, stop: Fraction, origin: Fraction) -> list[Fraction]:
        """Return the times t with ``start <= t < stop`` at which a frame is shown.

        Args:
            number: number of a frame of the source, from 0.
            start: its time.
            stop: time of the next frame.
            origin: time of the first frame.
        """
        if self.factor is not None:
            first, after = (math.ceil(n * self.factor) for n in (number, number + 1))
            return [start + (stop - start) * (k / self.factor - number) for k in range(first, after)]
        assert self.fps is not None
        k = math.ceil((start - origin) * self.fps)
        times = []
        while (time := origin + k / self.fps) < stop:
            times.append(Fraction(time))
            k += 1
        return times

    def count(self, frames: int, rate: Fraction, hold_last: bool = True) -> int:
        """Return how many frames a source of constant rate becomes.

        Args:
            frames: of the source, at least 1.
            rate: its frames per second.
            hold_last: see :func:`between_frames`.
        """
        ratio = self.factor if self.fps is None else self.fps / rate
        assert ratio is not None
        return math.ceil(frames * ratio) if hold_last else math.ceil((frames - 1) * ratio) + 1


@dataclass
class _Drawing(Generic[Frame]):
    """A drawing: the frame by which it is known again, and those that show it and still wait: number, frame, time."""

    known_by: Frame
    waiting: list[tuple[int, Frame, Fraction]] = field(default_factory=list)


@dataclass
class _Moving(Generic[Frame]):
    """The frames of a motion between two drawings, that wait for the drawing after it.

    Attributes:
        frames: of the new video.
        first: the drawing before them.
        length: time from it to the drawing after them.
    """

    frames: list[Between[Frame]]
    first: Frame
    length: Fraction

    def before(self, length: Fraction) -> Neighbour[Frame] | None:
        """Return the first drawing as the neighbour of the next motion, which takes the time ``length``."""
        return neighbour(self.first, self.length / length)

    def followed(self, frame: Frame, length: Fraction) -> Iterator[Between[Frame]]:
        """Yield the frames, if the next motion leads to ``frame`` within the time ``length``."""
        after = neighbour(frame, length / self.length)
        return (replace(between, after=after) if between.last is not None else between for between in self.frames)


def neighbour(frame: Frame, ratio: Fraction) -> Neighbour[Frame] | None:
    """Return a drawing as a neighbour; ``None`` if its motion takes more than twice, or less than half, the time."""
    return Neighbour(frame, float(ratio)) if 1 <= ratio * LARGEST_RATIO <= LARGEST_RATIO**2 else None


def between_frames(
    frames: Iterable[tuple[Frame, Fraction]],
    end: Callable[[], Fraction],
    grid: Grid,
    same: Callable[[Frame, Frame], bool],
    cuts: Iterable[int] = (),
    smooth: bool | Callable[[int], bool] = False,
    hold_last: bool = True,
    first: int = 0,
    origin: Fraction | None = None,
    neighbours: bool = False,
) -> Iterator[Between[Frame]]:
    """Yield the frames of the new video in the order of their times.

    A drawing that the source holds for several frames (animation on twos and threes) is not smeared: with
    ``smooth=False`` it stays until the last moment at which the source shows it, and the motion to the next drawing
    takes place in the last interval, as fast as it was; with ``smooth=True`` the motion takes the whole time of the
    hold, or the last `LONGEST_HOLD` frames of a longer one. Across a cut nothing is drawn: the shot's last drawing
    stays.

    Args:
        frames: frames of the source with their increasing times in seconds.
        end: returns the end of the last frame; called after the last frame.
        grid: times of the output frames.
        same: returns whether a frame shows the same drawing as the first frame of a hold.
        cuts: numbers of the frames that begin a shot.
        smooth: spread motion over held drawings; or a function that decides by the number of a frame.
        hold_last: repeat the last drawing at the times of the grid, so that the video keeps its length; else it
            is shown once, as in a folder of images.
        first: number of the first frame, if a video is resumed.
        origin: when the first frame of the video appears; by default the first that comes.
        neighbours: tell the drawings before and after each pair. The frames between two drawings then wait for the
            drawing that follows, for the next frame if the last one is held, or for a cut.
    """
    begins = set(cuts)
    present: _Drawing[Frame] | None = None
    moving: _Moving[Frame] | None = None  # the motion to the present drawing, as long as the next one can follow it
    for number, (frame, time) in enumerate(frames, first):
        limit = LONGEST_HOLD if (smooth(number) if callable(smooth) else smooth) else 1
        if present is None or origin is None:
            origin = time if origin is None else origin
            present = _Drawing(frame, [(number, frame, time)])
        elif number in begins:
            yield from moving.frames if moving else ()
            yield from _held(present, time, grid, origin)
            present, moving = _Drawing(frame, [(number, frame, time)]), None
        elif same(present.known_by, frame):
            present.waiting.append((number, frame, time))
            if len(present.waiting) > limit:
                yield from moving.frames if moving else ()
                moving = None
                # What is held for sure need not wait, so that a long hold costs no memory.
                yield from _held(_Drawing(present.known_by, present.waiting[:1]), present.waiting[1][2], grid, origin)
                del present.waiting[0]
        else:
            between = _moving(present, frame, time, grid, origin)
            if neighbours:
                _, drawing, begin = present.waiting[0]
                length = time - begin
                before = moving.before(length) if moving else None
                yield from moving.followed(frame, length) if moving else ()
                found = [replace(one, before=before) if one.last is not None else one for one in between]
                moving = _Moving(found, drawing, length)
            else:
                yield from between
            present = _Drawing(frame, [(number, frame, time)])
    yield from moving.frames if moving else ()
    if present is not None and origin is not None:
        if hold_last:
            yield from _held(present, end(), grid, origin)
        else:
            yield from (Between(time, frame) for _, frame, time in present.waiting)


def _held(drawing: _Drawing[Frame], until: Fraction, grid: Grid, origin: Fraction) -> Iterator[Between[Frame]]:
    for number, frame, start, stop in _intervals(drawing, until):
        for time in grid.times(number, start, stop, origin):
            yield Between(time, frame)


def _moving(
    drawing: _Drawing[Frame], following: Frame, until: Fraction, grid: Grid, origin: Fraction
) -> Iterator[Between[Frame]]:
    _, frame, begin = drawing.waiting[0]
    for number, _, start, stop in _intervals(drawing, until):
        for time in grid.times(number, start, stop, origin):
            t = (time - begin) / (until - begin)
            yield Between(time, frame, following if t else None, t)


def _intervals(drawing: _Drawing[Frame], until: Fraction) -> Iterator[tuple[int, Frame, Fraction, Fraction]]:
    stops = [*(time for _, _, time in drawing.waiting[1:]), until]
    for (number, frame, start), stop in zip(drawing.waiting, stops, strict=True):
        yield number, frame, start, stop
