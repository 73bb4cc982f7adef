"""Writing videos with FFmpeg through PyAV: exact times, colours by their tags, sound and subtitles copied."""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import torch
from av.video.frame import VideoFrame
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.files import completed, hidden_name, publish, translate_io_errors
from animegen.media.images import to_float
from animegen.media.video.copies import plan_copies
from animegen.media.video.deep import ToDeep, is_deep
from animegen.media.video.encoding import Encoding, add_stream, container_of, even_sides, segment_suffix
from animegen.media.video.frames import FrameWriter, Original, VideoInfo
from animegen.media.video.pixels import ToFrames, plain_name, same_values, tag, written_colour
from animegen.media.video.remux import MOST_REORDERED, DecodingOrder, Segment, join


class VideoWriter(FrameWriter):
    """A video in a video file.

    Times are kept exactly: in MP4 and MOV as multiples of the time base of ``info``, in Matroska rounded to its
    milliseconds. The codec is one that MP4 can hold. Where the pixel format wants even sides, the last column or row is
    repeated once.

    Args:
        path: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv`` or ``.webm``; the file appears when it is complete.
        info: size, rate, time base and colour; facts of another video may be used as they are.
        encoding: codec and its options.
        copy_from: a video of which sound, subtitles, attachments, chapters and tags are copied, packet by packet, where
            the file can hold them.
        piece: the video is only a piece of another, to be joined; its name has the suffix of
            :func:`~animegen.media.video.encoding.segment_suffix`.
        overwrite: replace a file of that name.

    Raises:
        AnimegenError: for options that do not fit, a folder that cannot be written, or a file that must not be
            replaced.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        encoding: Encoding | None = None,
        copy_from: str | Path | None = None,
        piece: bool = False,
        overwrite: bool = True,
    ) -> None:
        self.path, self.info, self.piece, self.overwrite = Path(path), info, piece, overwrite
        self.notes: list[str] = []
        self.count = 0
        self.copy_from = None if copy_from is None else Path(copy_from)
        encoding = encoding or Encoding()
        self.encoding = encoding
        # In a container with exact times until it is published.
        name = segment_suffix(encoding)[1:]
        if not piece:
            container_of(self.path)
        columns, rows = even_sides(encoding.pix_fmt)
        self._pad = -info.width % columns, -info.height % rows
        width, height = info.width + self._pad[0], info.height + self._pad[1]
        if any(self._pad):
            self.notes.append(
                f"pix_fmt={encoding.pix_fmt} wants even sides: '{self.path.name}' has {width}x{height} instead of"
                f" {info.width}x{info.height} pixels, its edge repeated (pix_fmt=yuv444p takes any size)."
            )
        self._colour = written_colour(info.resized(width, height))
        self._convert = ToFrames(encoding.pix_fmt, self._colour)
        self.deep, self.alpha = is_deep(encoding.pix_fmt), encoding.alpha
        self._convert_deep = ToDeep(encoding.pix_fmt, self._colour) if self.deep else None
        #: Frames of this format and size are stored unchanged.
        self._stored_as = None if any(self._pad) else (encoding.pix_fmt, width, height)
        self._time_base = info.time_base
        self._hidden = hidden_name(self.path)
        self._start, self._duration = Fraction(0), 1 / info.fps
        self._last: Fraction | None = None
        self._order = DecodingOrder(MOST_REORDERED)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._hidden), "w", format=name)
        self._open = True
        try:
            self._stream = add_stream(self._container, encoding, width, height, info.fps, self._time_base)
        except AnimegenError:
            self.abort()
            raise
        self._stream.codec_context.sample_aspect_ratio = info.pixel_aspect
        tag(self._stream.codec_context, self._colour, self._convert.rgb)

    @property
    def is_open(self) -> bool:
        """Whether it was neither completed nor given up."""
        return self._open

    def write(self, pixels: Tensor, time: Fraction) -> None:
        """Append a frame; see :meth:`FrameWriter.write`."""
        known = pixels.dtype == torch.uint8 or (self.deep and pixels.is_floating_point())
        fits = len(pixels) in ((3, 4) if self.alpha else (3,))
        if not (fits and known) or tuple(pixels.shape[1:]) != (self.info.height, self.info.width):
            raise ValueError(
                f"frames of this video are uint8 (3, {self.info.height}, {self.info.width}),"
                f" not {pixels.dtype} {tuple(pixels.shape)}"
            )
        columns, rows = self._pad
        pixels = torch.cat([pixels, pixels[:, :, -1:].expand(-1, -1, columns)], 2) if columns else pixels
        pixels = torch.cat([pixels, pixels[:, -1:].expand(-1, rows, -1)], 1) if rows else pixels
        if self._convert_deep and (self.alpha or pixels.is_floating_point()):
            self._append(self._convert_deep(pixels if pixels.is_floating_point() else to_float(pixels)), time)
        else:
            self._append(self._convert(pixels), time)

    def copy(self, original: Original, time: Fraction) -> None:
        """Append a frame of another video; see :meth:`FrameWriter.copy`.

        One with this video's pixel format, size and meaning of colours goes in value by value.
        """
        frame = original.stored
        if frame is None or (plain_name(frame), frame.width, frame.height) != self._stored_as:
            super().copy(original, time)
        else:
            self._append(same_values(frame), time)

    def _append(self, frame: VideoFrame, time: Fraction) -> None:
        if self._last is None:
            self._start = time
        elif time <= self._last:
            raise ValueError(f"a frame at {time} s after one at {self._last} s")
        else:
            self._duration = time - self._last
        self._last = time
        self.count += 1
        tag(frame, self._colour, self._convert.rgb)
        frame.time_base = self._time_base
        frame.pts = round((time - self._start) / self._time_base)
        with writing(self.path):
            self._mux(frame)

    def close(self, end: Fraction | None = None) -> None:
        """Complete the video; see :meth:`FrameWriter.close`.

        Raises:
            AnimegenError: if it has no frame, or cannot be stored.
        """
        if not self._open:
            return
        try:
            if self._last is None:
                raise AnimegenError(f"'{self.path}' is not written, since there is no frame for it: check the input.")
            with writing(self.path):
                self._mux(None)
                self._container.close()
                self._open = False
                self._publish(end if end is not None and end > self._last else self._last + self._duration)
        finally:
            self.abort()

    def _publish(self, end: Fraction) -> None:
        """Give the video its sound, its times, and its name."""
        if self.piece:  # joined later
            publish(self._hidden, self.path, self.overwrite)
            return
        copies = None
        if self.copy_from is not None:
            name = container_of(self.path)
            copies = plan_copies(self.copy_from, name, self.encoding, self.info.fps, Fraction(0))
        with completed(self.path, overwrite=self.overwrite) as joined:
            segment = Segment(self._hidden, self._start, end)
            self.notes += join([segment], joined, replace(self.info, colour=self._colour), copies, self.path)

    def abort(self) -> None:
        """Remove what was written; see :meth:`FrameWriter.abort`."""
        if self._open:
            self._open = False
            with suppress(av.error.FFmpegError, OSError):  # a file that could not be begun cannot be ended
                self._container.close()
        self._hidden.unlink(missing_ok=True)

    def _mux(self, frame: VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(self._order.add(packet))
        if frame is None:
            self._container.mux(self._order.rest())


def writing(path: Path) -> AbstractContextManager[None]:
    """Turn errors of FFmpeg, Pillow, OpenCV and the system into a sentence about a file that is being written."""
    return translate_io_errors(path, "written", also=(av.error.FFmpegError, ValueError, cv2.error))
