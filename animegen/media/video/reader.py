"""Reading videos with FFmpeg through PyAV: exact times, upright frames, damage reported instead of raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import av.error
import numpy as np
from av.codec import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.files import regular_file
from animegen.media.video.clock import MILLISECOND, Continuous, base_of, clock_of, stamp_of
from animegen.media.video.deep import FromDeep, is_deep
from animegen.media.video.deinterlacing import deinterlaced
from animegen.media.video.frames import DEFAULT_RATE, TRANSPARENT, FrameReader, Original, VideoInfo
from animegen.media.video.pixels import FromFrames, colour_of, has_alpha, is_transparent
from animegen.media.video.stages import decode_in_threads

#: Number of consecutive errors after which the rest of a file is skipped.
PATIENCE = 20
#: A file that ends this many seconds before its declared end is reported as cut off.
MISSING = Fraction(1, 2)
#: What is reported of a video whose clock is set again within the file.
JUMPS = "its clock was set again, as in joined recordings: the parts follow each other"
#: Side data of videos in HDR10.
_HDR = (SideDataType.MASTERING_DISPLAY_METADATA, SideDataType.CONTENT_LIGHT_LEVEL)
#: Packets of a video whose time stamps are looked at when it is opened.
SURVEYED = 250
#: Highest plausible frame rate; a higher one, or one below 1, is treated as an error in the header.
FASTEST = 480
#: Containers, by FFmpeg's names, whose duration is a length. Others store the time at which the last frame ends.
_LENGTHS = {"mov", "mpegts", "flv"}


class VideoReader(FrameReader):
    """A video in any container and codec that FFmpeg knows; animated GIFs too.

    Times count from the start of image or sound, whichever is first. A constant rate that the file rounds to
    milliseconds is restored.

    The object holds no open file: every reading opens its own, so that it can be copied to other processes, and be read
    several times at once. Decoding runs in
    :func:`~animegen.media.video.stages.decoding_threads`, ahead of what is asked for by as many frames.

    Args:
        path: the file.
        deinterlace: make one whole frame of the two fields of interlaced ones.
        straight: frames have their colours and their alpha (:attr:`Original.alpha`), and are not shown on white.

    Raises:
        AnimegenError: if it is missing, not a video, or has no frame that can be read.
    """

    def __init__(self, path: str | Path, deinterlace: bool = False, straight: bool = False) -> None:
        self.path, self.deinterlace = Path(path), deinterlace
        self.problems: list[str] = []
        self.end = Fraction(0)
        with self._open() as (container, stream):
            frames = _decoded(container, stream, lambda problem: None)
            first = next(frames, None)
            if first is None:
                raise AnimegenError(f"'{self.path}' holds no frame that can be read: replace or remove it.")
            self._turn, rotation, self._turned = orientation(first)
            self._size = first.width, first.height
            self._straight = straight and has_alpha(first.format.name)
            info = _info(container, stream, first, rotation, _remarks(first, deinterlace, self._straight))
            plausible = 1 <= info.fps <= FASTEST
            stamps = [] if plausible and info.time_base != MILLISECOND else self._stamps()
            if not plausible:
                measured = len(stamps) > 1 and (len(stamps) - 1) / (stamps[-1] - stamps[0])
                info = replace(info, fps=measured or DEFAULT_RATE)
            self._clock = clock_of(container, chain([first], frames), base_of(stream), info.fps, stamps)
        self.origin = self._clock.origin
        usual = 1 / self._clock.usual
        self.info = replace(info, fps=usual, time_base=self._clock.time_base, alpha=self._straight)

    @contextmanager
    def _open(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        with open_container(self.path) as container:
            stream = next((s for s in container.streams.video if not s.disposition & s.disposition.attached_pic), None)
            if stream is None:
                raise AnimegenError(f"'{self.path}' has no frames, only {_kinds(container)}: name a video.")
            decode_in_threads(stream.codec_context)
            yield container, stream

    def _stamps(self) -> list[Fraction]:
        """Return the first time stamps of the video, in seconds, in increasing order."""
        with self._open() as (container, stream):
            pieces = (p for p in packets(container, lambda problem: None) if p.stream_index == stream.index)
            return sorted({p.pts * p.time_base for p in islice(pieces, SURVEYED) if p.pts is not None})

    def frames(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Tensor, Fraction]]:
        """Yield frames; see :meth:`FrameReader.frames`. Decoding begins at the key frame before ``start``."""
        begin, convert = None if start is None else Fraction(start), FromFrames(self.info.colour, self._straight)
        for frame, time in self._timed(begin):
            if stop is not None and time >= stop:
                return
            if begin is None or time >= begin:
                yield self._turn(convert(frame)[:3]), time

    def originals(self, start: Fraction | float | None = None) -> Iterator[tuple[Original, Fraction]]:
        """Yield frames in their stored form; see :meth:`FrameReader.originals`."""
        begin, convert = None if start is None else Fraction(start), FromFrames(self.info.colour, self._straight)
        refine, turned = FromDeep(self.info.colour, self._straight), self._turned
        for frame, time in self._timed(begin):
            if begin is None or time >= begin:
                fine = (lambda kept=frame: self._turn(refine(kept))) if is_deep(frame.format.name) else None
                pixels = self._turn(convert(frame))
                alpha = pixels[3] if len(pixels) == 4 else None
                yield Original(pixels[:3], None if turned else frame, fine, alpha), time

    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time in seconds, uint8 ``(3,H,W)``."""
        shown = None
        for frame, appears in self._timed(Fraction(time)):
            if shown is not None and appears > time:
                break
            shown = frame
        assert shown is not None, "the video had a frame when it was opened"
        return self._turn(FromFrames(self.info.colour)(shown))

    def _timed(self, start: Fraction | None) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Yield decoded frames with increasing times, from a frame at or before ``start``."""
        back = Fraction(0)
        while True:
            with self._open() as (container, stream):
                frames = self._frames_from(container, stream, None if start is None else start - back)
                if frames is None:
                    # No key frame before the wanted time was found: look for an earlier one.
                    back = 2 * back or Fraction(1)
                    continue
                continuous = Continuous(container)
                frames = deinterlaced(frames, stream) if self.deinterlace else frames
                for frame, time, end in self._clock.times(frames, continuous, self.report):
                    if continuous.jumps:
                        self.report(JUMPS)
                    self.end = end
                    yield self._scaled(frame), time
                return

    def _scaled(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame in the size of the first one; broadcasts and joined files may change theirs."""
        if (frame.width, frame.height) == self._size:
            return frame
        self.report("its frames change their size: they are scaled to that of the first")
        return frame.reformat(*self._size, format=frame.format.name, interpolation="BICUBIC")

    def _frames_from(
        self, container: InputContainer, stream: VideoStream, start: Fraction | None
    ) -> Iterator[VideoFrame] | None:
        """Return decoded frames from a key frame at or before ``start``, or ``None`` if seeking did not find one."""
        # Where the clock was set again, times say nothing about places.
        if start is None or JUMPS in self.problems or start + self.origin <= max(self._clock.first, Fraction(0)):
            return _decoded(container, stream, self.report)
        start += self.origin
        try:
            container.seek(int(start / base_of(stream)), stream=stream)
        except av.error.FFmpegError:
            return _decoded(container, stream, self.report)  # not seekable
        frames = _decoded(container, stream, self.report, from_key=True)
        # Containers seek by decoding time, which is earlier than the time of showing.
        key = next(frames, None)
        time = None if key is None else stamp_of(key, base_of(stream))
        if key is None or time is None or time > start:
            return None
        return chain([key], frames)


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a file for reading.

    Raises:
        AnimegenError: if it cannot be read, is no regular file, or is no video.
    """
    size = regular_file(path).st_size
    try:
        container = av.open(str(path), metadata_errors="replace")
    except av.error.FFmpegError as error:
        reason = error.strerror or str(error)
        if size == 0:
            reason = "it is empty"
        elif isinstance(error, av.error.EOFError):
            reason = "it ends before its first frame"
        elif isinstance(error, av.error.InvalidDataError):
            reason = "it is not a video, is damaged, or is cut off before its index"
        raise AnimegenError(f"'{path}' cannot be read as a video ({reason}): replace or remove it.") from error
    with container:
        yield container


def packets(container: InputContainer, report: Callable[[str], None]) -> Iterator[Packet]:
    """Yield all packets of a file in order, skipping damage; report a missing end."""
    failures, ends = 0, Fraction(0)
    while failures < PATIENCE:
        try:
            for packet in container.demux():
                if packet.dts is None and packet.size == 0:
                    continue  # PyAV's sign of the end of each stream
                failures = 0
                time = packet.pts if packet.pts is not None else packet.dts
                if time is not None and packet.time_base:
                    ends = max(ends, (time + (packet.duration or 0)) * packet.time_base)
                yield packet
            break
        except av.error.FFmpegError as error:
            failures += 1
            if failures == 1:
                report(f"a part cannot be read ({error.strerror})")
    claimed = Fraction(container.duration or 0, av.time_base)
    if _stores_length(container):
        claimed += Fraction(container.start_time or 0, av.time_base)
    if claimed - ends > MISSING:
        report(f"it is cut off: {float(ends):.2f} of {float(claimed):.2f} s are there")


def _stores_length(container: InputContainer) -> bool:
    return not _LENGTHS.isdisjoint(container.format.name.split(","))


def _decoded(
    container: InputContainer, stream: VideoStream, report: Callable[[str], None], from_key: bool = False
) -> Iterator[VideoFrame]:
    """Yield all frames that can be decoded, in their order.

    With ``from_key`` those before the first key frame are left out, since they may need others that were not read.
    """
    decoder = _decoder(stream)
    damaged = failures = 0
    started = not from_key
    for packet in packets(container, report):
        if packet.stream_index != stream.index or not packet.size:
            continue
        try:
            frames = decoder.decode(packet)
        except av.error.FFmpegError:
            failures += started
            continue
        for frame in frames:
            started = started or frame.key_frame
            if started:
                damaged += frame.is_corrupt
                yield frame
    try:
        rest = decoder.decode(None)
    except av.error.FFmpegError:
        rest = []
    for frame in rest:
        started = started or frame.key_frame
        if started:
            damaged += frame.is_corrupt
            yield frame
    if failures:
        report(f"{failures} of its packets cannot be decoded")
    if damaged:
        report(f"{damaged} of its frames are damaged")


def _decoder(stream: VideoStream) -> VideoCodecContext:
    """Return the decoder of a stream: FFmpeg's own for VP8 and VP9 leaves out transparency, that of libvpx does not."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name, "")
    if stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return stream.codec_context
    decoder = CodecContext.create(name, "r")
    assert isinstance(decoder, VideoCodecContext)
    decode_in_threads(decoder)
    return decoder


def _info(
    container: InputContainer, stream: VideoStream, first: VideoFrame, rotation: int, remarks: tuple[str, ...]
) -> VideoInfo:
    rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
    duration: Fraction | None = None
    if stream.duration:
        duration = stream.duration * base_of(stream)
    elif container.duration:
        duration = Fraction(container.duration, av.time_base)
    if duration is not None and not _stores_length(container):
        duration -= (stream.start_time or 0) * base_of(stream)
    sideways = rotation % 180 != 0
    aspect = stream.sample_aspect_ratio or Fraction(1)
    aspect = aspect if aspect > 0 else Fraction(1)
    return VideoInfo(
        width=first.height if sideways else first.width,
        height=first.width if sideways else first.height,
        fps=Fraction(rate),
        time_base=base_of(stream),
        duration=duration,
        frames=stream.frames or None,
        has_audio=bool(container.streams.audio),
        codec=stream.codec_context.name,
        pix_fmt=first.format.name,
        colour=colour_of(first),
        rotation=rotation,
        pixel_aspect=1 / aspect if sideways else aspect,
        remarks=remarks,
    )


def _remarks(frame: VideoFrame, deinterlace: bool, straight: bool) -> tuple[str, ...]:
    """Return the remarks on a video by its first frame; see :attr:`VideoInfo.remarks`."""
    kinds: Iterable[SideData] = iter(frame.side_data)  # type: ignore[assignment]  # PyAV types it as a mapping
    found = []
    if frame.interlaced_frame and not deinterlace:
        found.append("It is interlaced: each frame shows two moments; deinterlace=auto makes whole frames of them.")
    if not straight and is_transparent(frame):
        found.append(TRANSPARENT)
    if any(data.type in _HDR for data in kinds):
        found.append("Its matrix and curve of HDR stay; what it says about the display it was made on is left out.")
    return tuple(found)


def orientation(frame: VideoFrame) -> tuple[Callable[[Tensor], Tensor], int, bool]:
    """Return the function that turns frames upright, its angle in degrees counter-clockwise, and if it changes them.

    It is read from the frame's display matrix, nine numbers of which the first, second, fourth and fifth are
    a, b, c, d of ``x' = a x + c y, y' = b x + d y``, in units of 1/65536, y down (ISO 14496-12, 6.2.2). Turns by
    90 degrees and mirrors are kept exactly; other angles, which no camera writes, are taken as the nearest of them.
    """
    known: Iterable[SideData] = iter(frame.side_data)  # type: ignore[assignment]  # PyAV types it as a mapping
    side = next((data for data in known if data.type == SideDataType.DISPLAYMATRIX), None)
    if side is None:
        return (lambda pixels: pixels), 0, False
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
    swap = abs(b) > abs(a)
    mirror_x, mirror_y = (c < 0, b < 0) if swap else (a < 0, d < 0)
    flips = [dim for dim, mirrored in ((2, mirror_x), (1, mirror_y)) if mirrored]

    def turn(pixels: Tensor) -> Tensor:
        turned = pixels.transpose(1, 2) if swap else pixels
        return turned.flip(flips).contiguous() if flips or swap else turned

    return turn, frame.rotation % 360, bool(flips or swap)


def _kinds(container: InputContainer) -> str:
    kinds = sorted({stream.type for stream in container.streams})
    return " and ".join(kinds) if kinds else "nothing"
