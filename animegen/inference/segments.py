"""The segments of a video that is being made, encoded in a thread while the next frames are drawn."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import Self

from torch import Tensor

from animegen.inference.partial import Finished, Partial
from animegen.media.video.encoding import Encoding, segment_suffix
from animegen.media.video.frames import Original, VideoInfo
from animegen.media.video.stages import Behind, waiting_frames
from animegen.media.video.writer import VideoWriter


class Segments:
    """The missing segments of an unfinished video.

    A context manager. Encoding and its errors follow the calls with a delay of a few frames; the normal end waits for
    all. After an error, the segments that were ended are kept, and the present one is removed.

    Args:
        unfinished: the unfinished video, which gets finished segments.
        info: size, rate, time base and colour.
        encoding: encoding of the segments.
        note: gets sentences for the user.

    Attributes:
        count: frames of the present segment.
        start: time of its first frame, in seconds.
        present: whether there is a segment that was begun and not ended.
    """

    def __init__(self, unfinished: Partial, info: VideoInfo, encoding: Encoding, note: Callable[[str], None]) -> None:
        self.unfinished, self.info, self.encoding, self.note = unfinished, info, encoding, note
        self.count, self.start, self.present = 0, Fraction(0), False
        self._last = Fraction(0)
        self._number = len(unfinished.finished)
        self._writers: list[VideoWriter] = []
        self._behind = Behind(waiting_frames(info.height, info.width))

    @property
    def deep(self) -> bool:
        """Whether frames of the present segment are kept with more than eight bits per colour."""
        return self._writers[-1].deep

    @property
    def alpha(self) -> bool:
        """Whether transparency is kept in the present segment."""
        return self._writers[-1].alpha

    def begin(self, start: Fraction) -> None:
        """Begin a segment whose first frame has this time.

        Raises:
            AnimegenError: if its file cannot be written.
        """
        self._number += 1
        path = self.unfinished.file(self._number, segment_suffix(self.encoding))
        writer = VideoWriter(path, self.info, self.encoding, piece=True)
        self._writers = [*(earlier for earlier in self._writers if earlier.is_open), writer]
        self.count, self.start, self.present = 0, start, True
        for sentence in writer.notes if self._number == 1 else ():
            self.note(sentence)

    def write(self, pixels: Tensor, time: Fraction) -> None:
        """Append a frame; see :meth:`VideoWriter.write`. Times are those of the video. The caller keeps no pixels.

        Raises:
            AnimegenError: if a frame before cannot be encoded or stored.
        """
        self._append(time, partial(self._writers[-1].write, pixels, time - self.start))

    def copy(self, original: Original, time: Fraction) -> None:
        """Append a frame of the source; see :meth:`VideoWriter.copy` and :meth:`write`."""
        self._append(time, partial(self._writers[-1].copy, original, time - self.start))

    def _append(self, time: Fraction, call: Callable[[], None]) -> None:
        self._behind(call)
        self.count += 1
        self._last = time

    def end(self, end: Fraction, problems: list[str], source: int | None = None, upto: Fraction | None = None) -> None:
        """End the present segment.

        Args:
            end: of its last frame.
            problems: damage in the video up to there.
            source: see :class:`~animegen.inference.partial.Finished`.
            upto: see there.

        Raises:
            AnimegenError: if a frame before cannot be encoded or stored.
        """
        writer = self._writers[-1]
        found = Finished(writer.path.name, self.count, self.start, self._last, end, source, upto)

        def finish() -> None:
            writer.close(end - found.start)
            self.unfinished.add(found, problems)

        self._behind(finish)
        self.present = False

    def __enter__(self) -> Self:
        self._behind.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._behind.__exit__(kind, error, trace)
        finally:
            for writer in self._writers:
                writer.abort()  # nothing is left to abort of one that was closed
