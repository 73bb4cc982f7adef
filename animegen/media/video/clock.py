"""Times of frames and packets from the time stamps of a file, which may be missing, rounded, or jump."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from av.container import InputContainer
from av.stream import Stream
from av.video.frame import VideoFrame

#: Time before zero, in seconds, that codecs of sound need to start up; it is not heard.
PRIMING = Fraction(1, 10)
#: A clock that goes back by more, in seconds, was set again. In broadcast formats also one that leaps ahead.
BACK, AHEAD = Fraction(1), Fraction(10)
#: Unit of the time stamps of Matroska, FLV and ASF, too coarse for most frame rates.
MILLISECOND = Fraction(1, 1000)
#: Formats, by FFmpeg's names, whose clock may be set again within a file, and starts anywhere.
_BROADCAST = {"mpegts", "mpeg"}
#: Frames without time stamps at the start that wait for the first time stamp.
_WAITING = 64


class Continuous:
    """Make the times of one stream continuous where its clock was set again, as in joined recordings.

    Args:
        container: the file; in broadcast formats a leap ahead is closed, too.
    """

    def __init__(self, container: InputContainer) -> None:
        self.jumps, self._offset = 0, Fraction(0)
        self._end: Fraction | None = None
        self._ahead = AHEAD if not _BROADCAST.isdisjoint(container.format.name.split(",")) else None

    def __call__(self, time: Fraction, duration: Fraction) -> Fraction:
        """Return a time of the continuous clock; what follows a jump begins where the part before it ended."""
        time += self._offset
        if self._end is not None:
            gap = time - self._end
            if gap < -BACK or (self._ahead is not None and gap > self._ahead):
                self.jumps += 1
                self._offset -= gap
                time = self._end
        self._end = time + duration
        return time


@dataclass(frozen=True)
class Clock:
    """Times of a video's frames.

    Attributes:
        origin: time stamp, in seconds, that becomes zero: the start of image or sound, whichever is first.
        first: time stamp of the first frame, in seconds.
        base: unit of the time stamps, in seconds.
        rate: frames per second of a constant rate whose times the file has rounded to milliseconds; ``None`` if the
            time stamps are taken as they are.
        usual: duration of most frames, in seconds.
    """

    origin: Fraction
    first: Fraction
    base: Fraction
    usual: Fraction
    rate: Fraction | None = None

    @property
    def time_base(self) -> Fraction:
        """All times are multiples of it, in seconds."""
        return self.base if self.rate is None else _common(self.base, 1 / self.rate)

    def exact(self, stamp: Fraction) -> Fraction:
        """Return the time that a time stamp, in seconds, stands for."""
        if self.rate is not None:
            even = self.first + round((stamp - self.first) * self.rate) / self.rate
            stamp = even if abs(even - stamp) <= self.base else stamp
        return stamp - self.origin

    def times(
        self, frames: Iterable[VideoFrame], continuous: Continuous, report: Callable[[str], None]
    ) -> Iterator[tuple[VideoFrame, Fraction, Fraction]]:
        """Yield frames with the time at which each appears and the time at which it is over. Times increase.

        Frames at the start that have no time stamp precede the first one that has one.
        """
        last: Fraction | None = None
        waiting: list[VideoFrame] = []
        for frame in frames:
            stamp = stamp_of(frame, self.base)
            duration = frame.duration * Fraction(frame.time_base or self.base) if frame.duration else self.usual
            if self.rate is not None and abs(duration - self.usual) <= 2 * self.base:
                duration = self.usual
            if stamp is None and last is None and len(waiting) < _WAITING:
                waiting.append(frame)
                continue
            time = None if stamp is None else self.exact(continuous(stamp, duration))
            if time is not None and last is None:
                for place, early in enumerate(waiting):
                    last = time - (len(waiting) - place) * self.usual
                    yield early, last, last + self.usual
                waiting.clear()
            if time is None or (last is not None and time <= last):
                report("some frames had no time, or not a later one than the frame before: they follow it")
                time = Fraction(0) if last is None else last + self.usual
            last = time
            yield frame, time, time + duration
        for number, frame in enumerate(waiting):
            yield frame, number * self.usual, (number + 1) * self.usual


def stamp_of(frame: VideoFrame, base: Fraction) -> Fraction | None:
    """Return the time stamp of a frame in seconds, ``None`` if it has none."""
    return None if frame.pts is None else frame.pts * Fraction(frame.time_base or base)


def clock_of(
    container: InputContainer, frames: Iterable[VideoFrame], base: Fraction, rate: Fraction, stamps: list[Fraction]
) -> Clock:
    """Return the clock of a video.

    Args:
        container: the file.
        frames: its first frames, in order; read up to the first that has a time stamp.
        base: unit of the video's time stamps, in seconds.
        rate: frames per second that the file states.
        stamps: increasing time stamps of packets, in seconds, that show whether the rate is constant.
    """
    first = Fraction(0)
    for number, frame in enumerate(frames):
        stamp = stamp_of(frame, base)
        if stamp is not None:
            first = stamp - number / rate
            break
        if number == _WAITING:
            break
    sound = [start_of(stream) for stream in container.streams.audio if stream.start_time is not None]
    origin = min([first, *sound])
    if first >= 0 and -PRIMING <= origin < 0:
        origin = Fraction(0)
    # A duration of whole nanoseconds or microseconds stands for 30000/1001 and the like.
    ntsc = Fraction(round(rate * Fraction(1001, 1000)) * 1000, 1001)
    rate = ntsc if base == MILLISECOND and abs(rate / ntsc - 1) < Fraction(1, 10**6) else rate
    clock = Clock(round(origin / base) * base, first, base, 1 / rate, rate)
    even = base == MILLISECOND and len(stamps) > 2 and all(_is_even(clock, stamp) for stamp in stamps)
    return clock if even else Clock(clock.origin, first, base, 1 / rate)


def _is_even(clock: Clock, stamp: Fraction) -> bool:
    assert clock.rate is not None
    frames = (clock.exact(stamp) + clock.origin - clock.first) * clock.rate
    return frames.denominator == 1


def start_of(stream: Stream) -> Fraction:
    """Return the time stamp, in seconds, with which a stream begins."""
    return (stream.start_time or 0) * base_of(stream)


def base_of(stream: Stream) -> Fraction:
    """Return the unit of a stream's time stamps, in seconds."""
    return Fraction(stream.time_base or Fraction(1, 1_000_000))


def _common(a: Fraction, b: Fraction) -> Fraction:
    """Return the largest number of which both are multiples."""
    return Fraction(math.gcd(a.numerator * b.denominator, b.numerator * a.denominator), a.denominator * b.denominator)
