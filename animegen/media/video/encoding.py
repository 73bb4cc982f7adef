"""Encoding options of videos (codec, quality, pixel format), validated before any work begins."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import av.error
from av.codec import Codec
from av.container import OutputContainer
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from animegen.errors import AnimegenError, did_you_mean
from animegen.media.video.pixels import has_alpha

#: Suffix of a video that can be written -> FFmpeg's name of its container.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
#: Containers of segments, by FFmpeg's names, which are their suffixes: the first that takes the codec. Their time
#: stamps are exact, those of Matroska are not.
SEGMENTS = ("mp4", "nut", "mov")
#: Codecs whose quality is set by ``crf``, with a visually lossless value. Lower is better and larger.
CRF = {"libx264": 17, "libx265": 20, "libsvtav1": 24, "libvpx-vp9": 24, "libx264rgb": 17}
#: Pixel formats: the one that plays everywhere, and its counterpart with ten bits.
USUAL_FORMAT, DEEP_FORMAT = "yuv420p", "yuv420p10le"
#: Pixel formats with transparency, the best first: for eight bits per colour, and for more.
ALPHA_FORMATS, DEEP_ALPHA_FORMATS = ("bgra", "rgba", "argb"), ("yuva444p10le",)
#: Suffix -> the usual codec with transparency. Players know none in MP4.
ALPHA_CODECS = {".mov": "prores_ks", ".mkv": "ffv1", ".webm": "libvpx-vp9"}
#: Codecs whose transparency is kept beside the image, by Matroska and WebM alone.
_BESIDE = ("libvpx", "libvpx-vp9")
#: Codecs with presets, and the default: a balance of time and file size.
PRESET = {"libx264": "medium", "libx264rgb": "medium", "libx265": "medium", "libsvtav1": "8"}


@dataclass(frozen=True)
class Encoding:
    """Encoding options.

    Attributes:
        codec: FFmpeg's name of the encoder.
        crf: constant rate factor, for the codecs of :data:`CRF`; lower is better and larger. ``None``: see there.
        preset: speed against file size, by the codec's own names. ``None``: see :data:`PRESET`.
        pix_fmt: pixel format. yuv420p plays everywhere but halves the colour resolution; yuv444p keeps it.
    """

    codec: str = "libx264"
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str = "yuv420p"

    @property
    def alpha(self) -> bool:
        """Whether it stores transparency."""
        return has_alpha(self.pix_fmt)

    def options(self) -> dict[str, str]:
        """Return the options for FFmpeg.

        Raises:
            AnimegenError: for an option that the codec does not have.
        """
        chosen: dict[str, str] = {}
        for name, value, usual in (("crf", self.crf, CRF), ("preset", self.preset, PRESET)):
            if self.codec in usual:
                chosen[name] = str(usual[self.codec] if value is None else value)
            elif value is not None:
                raise AnimegenError(f"{name}={value} has no effect with codec={self.codec}: leave {name}= out.")
        if self.codec == "libx265":
            chosen["x265-params"] = "log-level=error"
        return chosen


def usual_format(codec: str, deep: bool, alpha: bool = False) -> str:
    """Return the default pixel format.

    Args:
        codec: FFmpeg's name of the encoder.
        deep: whether the video has more than eight bits per colour; then it is one with ten, where the codec has it.
        alpha: whether the video has transparency; then it is one with it, where the codec has it.
    """
    try:
        formats = [format_.name for format_ in Codec(codec, "w").video_formats or []]
    except ValueError:
        return USUAL_FORMAT  # the unknown encoder is reported when it is opened
    wanted = [DEEP_FORMAT, USUAL_FORMAT] if deep else [USUAL_FORMAT]
    if alpha:
        kinds = (DEEP_ALPHA_FORMATS, ALPHA_FORMATS) if deep else (ALPHA_FORMATS, DEEP_ALPHA_FORMATS)
        wanted = [*kinds[0], *(["yuva420p"] if codec in _BESIDE else kinds[1]), *wanted]
    return next((name for name in wanted if name in formats or not formats), formats[0] if formats else USUAL_FORMAT)


def usual_codec(suffix: str, alpha: bool = False) -> str:
    """Return FFmpeg's name of the default encoder for videos of a suffix; ``alpha``: with transparency, if it can."""
    if alpha and ALPHA_CODECS.get(suffix) in av.codecs_available:
        return ALPHA_CODECS[suffix]
    return "libvpx-vp9" if suffix == ".webm" else "libx264"


def lossless(deep: bool, alpha: bool) -> Encoding:
    """Return a fast lossless encoding for segments that are encoded again."""
    if deep:
        return Encoding("ffv1", pix_fmt="yuva444p16le" if alpha else "yuv444p16le")
    if alpha:
        return Encoding("ffv1", pix_fmt="bgra")
    return Encoding("libx264rgb", crf=0, preset="ultrafast", pix_fmt="rgb24")


def fits_alpha(codec: str, suffix: str) -> bool:
    """Tell whether a file of a suffix can hold the transparency of a codec that has any."""
    return codec not in _BESIDE or suffix in (".mkv", ".webm")


def container_of(path: Path) -> str:
    """Return FFmpeg's name of the container for a file of this name.

    Raises:
        AnimegenError: if videos of this suffix are not written.
    """
    name = CONTAINERS.get(path.suffix.lower())
    if name is None:
        near = did_you_mean(path.suffix.lower(), [*CONTAINERS, ".gif", ".webp", ".apng"])
        raise AnimegenError(
            f"'{path}' has no suffix of a video that can be written: use {', '.join(CONTAINERS)}, .gif, .webp or"
            f" .apng.{near}"
        )
    return name


def segment_suffix(encoding: Encoding) -> str:
    """Return the suffix of files that hold segments of a video of this encoding."""
    if encoding.alpha and encoding.codec in _BESIDE:
        return ".webm"  # with times in milliseconds, as in the only files that will hold it
    for name in SEGMENTS:
        with av.open(io.BytesIO(), "w", format=name) as container:
            if encoding.codec in container.supported_codecs:
                return f".{name}"
    return f".{SEGMENTS[-1]}"


@lru_cache
def check_encoding(encoding: Encoding, path: Path) -> None:
    """Encode one small frame for a container like ``path`` in memory, so that mistakes are found before any work.

    Raises:
        AnimegenError: names the option that is wrong.
    """
    name = container_of(path)
    try:
        with av.open(io.BytesIO(), "w", format=name) as container:
            stream = add_stream(container, encoding, 64, 64, Fraction(25), Fraction(1, 25))
            if encoding.alpha and not fits_alpha(encoding.codec, path.suffix):
                raise AnimegenError(
                    f"'{path.suffix}' holds no transparency of codec={encoding.codec}: use .webm or .mkv, or another"
                    " pix_fmt=."
                )
            frame = VideoFrame(64, 64, encoding.pix_fmt)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))  # libx264 crashes on values beyond ten bits
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            for packet in (*stream.encode(frame), *stream.encode(None)):
                packet.dts = packet.pts  # libx265 gives videos of one frame any number
                container.mux(packet)
    except av.error.FFmpegError as error:
        raise AnimegenError(
            f"codec={encoding.codec} refuses to write '{path.suffix}' with pix_fmt={encoding.pix_fmt},"
            f" {encoding.options()} ({error.strerror}): change one of them."
        ) from error


def add_stream(
    container: OutputContainer, encoding: Encoding, width: int, height: int, fps: Fraction, time_base: Fraction
) -> VideoStream:
    """Add a stream of video to a file that is being written.

    Raises:
        AnimegenError: for a codec that does not exist or does not fit the container, or a pixel format that it lacks.
    """
    os.environ.setdefault("SVT_LOG", "1")  # the only way to silence libsvtav1
    try:
        formats = [format_.name for format_ in Codec(encoding.codec, "w").video_formats or []]
    except ValueError as error:
        near = did_you_mean(encoding.codec, [*CRF, "mpeg4", "ffv1", "prores_ks"])
        raise AnimegenError(
            f"codec={encoding.codec} is not an encoder of this build of FFmpeg: use e.g. {', '.join(CRF)}.{near}"
        ) from error
    if Codec(encoding.codec, "w").type != "video":
        raise AnimegenError(f"codec={encoding.codec} encodes no video: use e.g. {', '.join(CRF)}.")
    if formats and encoding.pix_fmt not in formats:
        near = did_you_mean(encoding.pix_fmt, formats)
        raise AnimegenError(
            f"codec={encoding.codec} has no pix_fmt={encoding.pix_fmt}: use one of {', '.join(formats)}.{near}"
        )
    try:
        stream = container.add_stream(
            encoding.codec,
            rate=fps.limit_denominator(100_000),
            options=encoding.options(),
            width=width,
            height=height,
            pix_fmt=encoding.pix_fmt,
            time_base=time_base,
        )
    except ValueError as error:
        raise AnimegenError(
            f"codec={encoding.codec} cannot be stored in {container.format.name} files ({error}): use another codec or"
            " suffix."
        ) from error
    assert isinstance(stream, VideoStream)
    stream.codec_context.time_base = time_base
    stream.time_base = time_base
    return stream


def even_sides(pix_fmt: str) -> tuple[int, int]:
    """Return the divisors of width and height that chroma subsampling requires."""
    components = VideoFormat(pix_fmt, 16, 16).components
    if len(components) < 2:
        return 1, 1
    return 16 // components[1].width, 16 // components[1].height
