"""Interfaces of readers and writers of videos: video files, GIFs and folders of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from av.video.frame import VideoFrame
from torch import Tensor

from animegen.media.images import to_float

#: Values of ITU-T H.273 for the matrix, also FFmpeg's ``AVColorSpace``.
RGB, BT709, UNSPECIFIED, SMPTE170M, BT2020 = 0, 1, 2, 6, 9
#: Remark on a video with transparency.
TRANSPARENT = "Its transparency is not kept: it is shown on white."
#: Default frames per second of a video made of images: that of cinema.
DEFAULT_RATE = Fraction(24)


@dataclass(frozen=True)
class Colour:
    """Colour space of a video; values as in ITU-T H.273.

    Attributes:
        matrix: from RGB to luma and chroma: 1 is BT.709, 5 and 6 are BT.601, 9 is BT.2020, 0 is RGB itself.
        full_range: luma ranges from 0 to 255, not from 16 to 235.
        primaries: colour primaries; 2 is unspecified.
        transfer: transfer characteristics; 2 is unspecified.
    """

    matrix: int = BT709
    full_range: bool = False
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video. Width and height are those of the upright frames.

    Attributes:
        width: of a frame, in pixels.
        height: of a frame, in pixels.
        fps: mean frames per second.
        time_base: all time stamps are multiples of it, in seconds.
        duration: in seconds, as the file says; ``None`` if it does not.
        frames: their number as the file says; ``None`` if it does not. A damaged file says more than it holds.
        has_audio: whether there is a sound track.
        codec: FFmpeg's name of the codec, or the suffix of the images.
        pix_fmt: FFmpeg's name of the pixel format in the file.
        colour: colour space; guessed where the file does not say.
        rotation: degrees counter-clockwise by which the stored frames were turned upright.
        pixel_aspect: width of a pixel over its height.
        alpha: frames have transparency that is kept.
        remarks: a sentence for each property that is lost, or is a problem, when its frames are processed.
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
    alpha: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def expected_frames(self) -> int | None:
        """The number of frames, from rate and duration if the file does not say it; for progress bars."""
        if self.frames is None and self.duration is not None:
            return max(1, round(self.duration * self.fps))
        return self.frames

    def resized(self, width: int, height: int) -> VideoInfo:
        """Return the facts of the same video in another size."""
        return replace(self, width=width, height=height)


@dataclass(eq=False)
class Original:
    """A frame with its stored form, so that a copy keeps every value.

    Attributes:
        pixels: uint8 ``(3,H,W)`` RGB.
        stored: FFmpeg's frame, if the video lies in a video file and need not be turned.
        refine: makes :attr:`values` of a video with more than eight bits per colour; ``None``: it has eight.
        alpha: uint8 ``(H,W)``, 0 is transparent; ``None`` if the frame has none, or is shown on white.
    """

    pixels: Tensor
    stored: VideoFrame | None = None
    refine: Callable[[], Tensor] | None = None
    alpha: Tensor | None = None

    @property
    def channels(self) -> Tensor:
        """The pixels, uint8 ``(3,H,W)``, with alpha ``(4,H,W)``."""
        return self.pixels if self.alpha is None else torch.cat([self.pixels, self.alpha[None]])

    @cached_property
    def values(self) -> Tensor:
        """The channels as float32, black -1 and white 1, transparent -1 and opaque 1, at the precision of the video."""
        return to_float(self.channels) if self.refine is None else self.refine()

    def at(self, deep: bool) -> Tensor:
        """Return :attr:`values` for ``deep`` if they have more than eight bits per colour, else :attr:`channels`."""
        return self.values if deep and self.refine else self.channels


class FrameReader(ABC):
    """A video that can be read repeatedly, from any time; one frame is held in memory at a time.

    Attributes:
        path: where it lies.
        info: facts about it.
        problems: a sentence for each part that could not be read so far.
        end: time in seconds at which the last frame that was read stops being shown.
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
            Frames that cannot be read are skipped and reported in :attr:`problems`.
        """

    @abstractmethod
    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time: uint8 ``(3,H,W)``, the first frame before the video begins."""

    def __iter__(self) -> Iterator[tuple[Tensor, Fraction]]:
        return self.frames()

    def originals(self, start: Fraction | float | None = None) -> Iterator[tuple[Original, Fraction]]:
        """Yield the frames from a time on in their stored form; otherwise as :meth:`frames`."""
        for pixels, time in self.frames(start):
            yield Original(pixels), time

    def report(self, problem: str) -> None:
        """Note a problem, once."""
        if problem not in self.problems:
            self.problems.append(problem)


class FrameWriter(ABC):
    """A video being written; it appears under its name when it is closed, and not after an error.

    Used as a context manager; without, call :meth:`close` at the end or :meth:`abort`.

    Attributes:
        path: where it will lie.
        notes: sentences that the user should read.
        count: frames written.
        deep: whether frames are kept with more than eight bits per colour.
        alpha: whether transparency is kept.
    """

    path: Path
    notes: list[str]
    count: int
    deep: bool = False
    alpha: bool = False

    @abstractmethod
    def write(self, pixels: Tensor, time: Fraction) -> None:
        """Append a frame.

        Args:
            pixels: uint8 ``(3,H,W)``, RGB; all frames of one size. Where :attr:`deep`, also float, see
                :attr:`Original.values`. Where :attr:`alpha`, also ``(4,H,W)`` with straight alpha.
            time: when it appears, in seconds; later than the frame before.

        Raises:
            AnimegenError: if it cannot be encoded or stored.
        """

    def copy(self, original: Original, time: Fraction) -> None:
        """Append a frame of another video, with its own values where the format allows; see :meth:`write`."""
        pixels = original.at(self.deep)
        self.write(pixels if self.alpha else pixels[:3], time)

    @abstractmethod
    def close(self, end: Fraction | None = None) -> None:
        """Complete the video; the last frame is shown until ``end`` (``None``: as long as the one before)."""

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
