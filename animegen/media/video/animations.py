"""Animated images as videos: GIF, WebP and APNG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.files import hidden_name, publish
from animegen.media.images import open_image, to_rgb
from animegen.media.photos import straight
from animegen.media.video.frames import RGB, TRANSPARENT, Colour, FrameReader, FrameWriter, Original, VideoInfo
from animegen.media.video.writer import writing

#: Time, in seconds, of a frame that states none; as browsers do.
_UNSTATED = Fraction(1, 10)


@dataclass(frozen=True)
class _Format:
    """How an animated image is written.

    Attributes:
        muxer: FFmpeg's name of the container.
        codec: FFmpeg's name of the encoder.
        pix_fmt: of the encoder.
        tick: unit of times, in seconds.
        shortest: frames shorter than so many ticks are shown for longer by viewers.
        options: of the encoder.
        endless: options of the container that repeat it endlessly.
    """

    muxer: str
    codec: str
    pix_fmt: str
    tick: Fraction
    shortest: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    endless: Mapping[str, str] = field(default_factory=dict)


#: Suffix of an animated image that can be written -> how.
ANIMATIONS = {
    ".gif": _Format("gif", "gif", "pal8", Fraction(1, 100), 2),
    ".webp": _Format("webp", "libwebp_anim", "bgra", Fraction(1, 1000), 1, {"lossless": "1"}, {"loop": "0"}),
    ".apng": _Format("apng", "apng", "rgb24", Fraction(1, 1000), 1, {}, {"plays": "0"}),
}


class AnimationWriter(FrameWriter):
    """An animated image, endlessly repeated. WebP and APNG are lossless; every frame of a GIF has its own 256 colours.

    Times are rounded to hundredths of a second (GIF) or milliseconds without accumulating errors. Frames that would be
    shown for less than two hundredths in a GIF are dropped, since viewers would slow down; their number is reported.
    Transparency is kept if ``info`` has it, in GIF as visible or not.

    Args:
        path: the file, which appears when it is complete; the suffix is one of :data:`ANIMATIONS`.
        info: facts about the video.
        overwrite: replace a file of that name.
    """

    def __init__(self, path: str | Path, info: VideoInfo, overwrite: bool = True) -> None:
        self.path, self.info, self.overwrite = Path(path), info, overwrite
        self.notes: list[str] = []
        self.count = self.dropped = 0
        self._format = ANIMATIONS[self.path.suffix.lower()]
        self.alpha = info.alpha
        self._pix_fmt = "rgba" if self.alpha and self._format.pix_fmt == "rgb24" else self._format.pix_fmt
        self._pending: tuple[Tensor, int] | None = None
        self._start: Fraction | None = None
        self._last_duration = max(self._format.shortest, round(1 / info.fps / self._format.tick))
        self._hidden = hidden_name(self.path)
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            options = dict(self._format.endless)
            self._container = av.open(str(self._hidden), "w", format=self._format.muxer, container_options=options)
            stream = self._container.add_stream(
                self._format.codec,
                rate=1 / self._format.tick,
                width=info.width,
                height=info.height,
                options=dict(self._format.options),
            )
        assert isinstance(stream, VideoStream)
        self._stream, self._open = stream, True
        self._stream.pix_fmt = self._pix_fmt
        self._stream.codec_context.time_base = self._format.tick

    def write(self, pixels: Tensor, time: Fraction) -> None:
        """Append a frame; see :meth:`FrameWriter.write`."""
        self._start = time if self._start is None else self._start
        tick = round((time - self._start) / self._format.tick)
        if self._pending is not None:
            if tick < self._pending[1] + self._format.shortest:
                self.dropped += 1
                return
            self._encode(tick)
        self._pending = pixels, tick
        self.count += 1

    def close(self, end: Fraction | None = None) -> None:
        """Complete the video; see :meth:`FrameWriter.close`."""
        if not self._open:
            return
        if self._pending is None:
            self.abort()
            raise AnimegenError(f"'{self.path}' is not written, since there is no frame for it: check the input.")
        assert self._start is not None
        self._encode(None if end is None else round((end - self._start) / self._format.tick))
        try:
            with writing(self.path):
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
                self._open = False
                self._container.close()
                publish(self._hidden, self.path, self.overwrite)
        finally:
            self.abort()
        if self.dropped:
            most = 1 / (self._format.tick * self._format.shortest)
            name = self.path.suffix[1:].upper()
            self.notes.append(f"A {name} shows at most {most} frames per second: {self.dropped} were left out.")

    def abort(self) -> None:
        """Remove what was written; see :meth:`FrameWriter.abort`."""
        if self._open:
            self._open = False
            with suppress(av.error.FFmpegError, OSError):
                self._container.close()
        self._hidden.unlink(missing_ok=True)

    def _encode(self, until: int | None) -> None:
        assert self._pending is not None
        pixels, tick = self._pending
        if until is not None:
            self._last_duration = max(self._format.shortest, until - tick)
        values = pixels.permute(1, 2, 0).contiguous().numpy()
        with writing(self.path):
            if self._pix_fmt == "pal8":
                frame = _paletted(values)
            else:
                frame = VideoFrame.from_ndarray(values, "rgba" if len(pixels) == 4 else "rgb24")
                frame = frame.reformat(format=self._pix_fmt)
            frame.pts, frame.time_base = tick, self._format.tick
            for packet in self._stream.encode(frame):
                packet.duration = self._last_duration
                self._container.mux(packet)


def _paletted(values: np.ndarray) -> VideoFrame:
    # Median cut keeps the flat colours of drawings as they are; dithering would cover them with dots.
    opaque = values.shape[2] == 3
    reduced = Image.fromarray(values[..., :3]).quantize(
        256 if opaque else 255, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
    colours = np.array(reduced.getpalette("RGB"), np.uint8).reshape(-1, 3)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours), 1:] = colours
    indices = np.array(reduced)
    if not opaque:
        palette[255] = 0
        indices[values[..., 3] < 128] = 255
    both: Any = (indices, palette)  # what PyAV's types do not know of
    return VideoFrame.from_ndarray(both, "pal8")


class AnimationReader(FrameReader):
    """An animated image read with Pillow: WebP and AVIF, which FFmpeg does not read, and images with transparency.

    Args:
        path: the file.
        straight: frames have their colours and their alpha (:attr:`Original.alpha`), and are not shown on white.

    Raises:
        AnimegenError: if it cannot be read.
    """

    def __init__(self, path: str | Path, straight: bool = False) -> None:
        self.path, self.straight = Path(path), straight
        self.problems: list[str] = []
        self.end = Fraction(0)
        with open_image(self.path) as image:
            width, height = image.size
            count = int(getattr(image, "n_frames", 1))
        info = VideoInfo(width, height, codec=self.path.suffix.lower()[1:], colour=Colour(RGB, full_range=True))
        self.info = info
        read, transparent = [], False
        for image, time in self._images():
            read.append(self.end - time)
            transparent = transparent or bool(np.array(image.convert("RGBA"))[..., 3].min() < 255)
        if not read:
            raise AnimegenError(f"'{self.path}' holds no frame that can be read: replace or remove it.")
        duration = sum(read, Fraction(0))
        self.info = VideoInfo(
            width,
            height,
            fps=len(read) / duration,
            time_base=Fraction(1, 1000),
            duration=duration,
            frames=count,
            codec=info.codec,
            colour=info.colour,
            alpha=transparent and straight,
            remarks=(TRANSPARENT,) if transparent and not straight else (),
        )

    def frames(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Tensor, Fraction]]:
        """Yield frames; see :meth:`FrameReader.frames`."""
        for image, time in self._images(start, stop):
            yield _pixels(straight(image) if self.straight else to_rgb(image))[:3].contiguous(), time

    def originals(self, start: Fraction | float | None = None) -> Iterator[tuple[Original, Fraction]]:
        """Yield frames with their alpha; see :meth:`FrameReader.originals`."""
        for image, time in self._images(start):
            pixels = _pixels(straight(image) if self.straight else to_rgb(image))
            yield Original(pixels[:3].contiguous(), alpha=pixels[3] if len(pixels) == 4 else None), time

    def _images(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Image.Image, Fraction]]:
        time = Fraction(0)
        with open_image(self.path) as image:
            for number in range(int(getattr(image, "n_frames", 1))):
                if stop is not None and time >= stop:
                    return
                try:
                    image.seek(number)
                    image.load()
                except Exception as error:  # Pillow's decoders raise nearly every kind of exception
                    self.report(f"frames from the {number + 1}th on cannot be read ({error})")
                    return
                duration = Fraction(round(image.info.get("duration") or 0), 1000) or _UNSTATED
                self.end = time + duration
                if start is None or time >= start:
                    yield image, time
                time += duration

    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time; see :meth:`FrameReader.at`."""
        shown: Tensor | None = None
        for pixels, appears in self.frames():
            if shown is not None and appears > time:
                break
            shown = pixels
        assert shown is not None, "the animation had a frame when it was opened"
        return shown


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)
