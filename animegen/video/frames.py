"""What all films have in common, whether they lie in a video file, a GIF or a folder of pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

#: Values of ITU-T H.273 for the matrix, also FFmpeg's ``AVColorSpace``.
RGB, BT709, UNSPECIFIED, BT470BG, SMPTE170M, BT2020 = 0, 1, 2, 5, 6, 9
#: Frames per second of a film that is made from pictures, if nobody says otherwise: that of cinema.
DEFAULT_RATE = Fraction(24)


@dataclass(frozen=True)
class Colour:
    """How the numbers of a film mean colours; the values are those of ITU-T H.273.

    Attributes:
        matrix: from RGB to luma and chroma: 1 is BT.709, 5 and 6 are BT.601, 9 is BT.2020, 0 is RGB itself.
        full_range: luma lies in 0 to 255, not in 16 to 235.
        primaries: which red, green and blue; 2 is unspecified.
        transfer: from light to number; 2 is unspecified.
    """

    matrix: int = BT709
    full_range: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a film. Width and height are those of the upright frames.

    Attributes:
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        fps: mean frames per second.
        time_base: all time stamps are multiples of it, in seconds.
        duration: in seconds, as the file says; ``None`` if it does not.
        frames: their number as the file says; ``None`` if it does not. A damaged file says more than it holds.
        has_audio: whether there is a sound track.
        codec: FFmpeg's name of the codec, or the suffix of the pictures.
        pix_fmt: FFmpeg's name of the pixel format in the file.
        colour: how its numbers mean colours; guessed where the file does not say.
        rotation: by how many degrees counter-clockwise the stored frames were turned to stand upright.
        pixel_aspect: width of a pixel over its height.
    """

    width: int
    height: int
    fps: Fraction = DEFAULT_RATE
    time_base: Fraction = 1 / DEFAULT_RATE
    duration: Fraction | None = None
    frames: int | None = None
    has_audio: bool = False
    codec: str = ""
    pix_fmt: str = "rgb24"
    colour: Colour = Colour()
    rotation: int = 0
    pixel_aspect: Fraction = Fraction(1)

    @property
    def expected_frames(self) -> int | None:
        """The number of frames, from rate and duration if the file does not say it; for progress bars."""
        if self.frames is None and self.duration is not None:
            return max(1, round(self.duration * self.fps))
        return self.frames

    def resized(self, width: int, height: int) -> VideoInfo:
        """Return the facts of the same film in another size."""
        return replace(self, width=width, height=height)


class FrameReader(ABC):
    """A film that can be read, as often as one likes, from any time on; one frame is held at a time.

    Attributes:
        path: where it lies.
        info: facts about it.
        problems: a sentence for each thing that could not be read, up to now.
        end: the time in seconds at which the frame that was given last ceases to be shown.
    """

    path: Path
    info: VideoInfo
    problems: list[str]
    end: Fraction

    @abstractmethod
    def frames(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Tensor, Fraction]]:
        """Yield the frames whose time t has ``start <= t < stop``, in seconds; ``None`` is no limit.

        Yields:
            uint8 ``(3,H,W)`` RGB, and the exact time in seconds at which the frame appears. Times increase.
            Frames that cannot be read are left out and told in :attr:`problems`.
        """

    @abstractmethod
    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time: uint8 ``(3,H,W)``, the first frame before the film begins."""

    def __iter__(self) -> Iterator[tuple[Tensor, Fraction]]:
        return self.frames()

    def report(self, problem: str) -> None:
        """Note a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)


class FrameWriter(ABC):
    """A film that is being written; it appears under its name when it is closed, and not if an error ends it.

    Used as a context manager; without, call :meth:`close` at the end or :meth:`abort`.

    Attributes:
        path: where it will lie.
        notes: a sentence for each thing that the user should know.
        count: frames written.
    """

    path: Path
    notes: list[str]
    count: int

    @abstractmethod
    def write(self, pixels: Tensor, time: Fraction) -> None:
        """Append a frame.

        Args:
            pixels: uint8 ``(3,H,W)``, RGB; all frames of one size.
            time: when it appears, in seconds; later than the frame before.

        Raises:
            AnimegenError: if it cannot be encoded or stored.
        """

    @abstractmethod
    def close(self, end: Fraction | None = None) -> None:
        """Complete the film; the last frame is shown until ``end`` (``None``: as long as the one before)."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what was written; does nothing after :meth:`close`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()
