"""Small videos for tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from torch import Tensor

from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import Colour, VideoInfo
from animegen.media.video.pixels import rows, tag
from animegen.media.video.writer import VideoWriter
from animegen.toonworld.film import Film

FAST = Encoding(preset="ultrafast")
#: Keeps every value.
EXACT = Encoding("libx264rgb", crf=0, preset="ultrafast", pix_fmt="rgb24")


def level(value: int, height: int = 16, width: int = 24) -> Tensor:
    """Return a frame of one grey."""
    return torch.full((3, height, width), value, dtype=torch.uint8)


def noise(number: int, height: int = 16, width: int = 24) -> Tensor:
    """Return a frame of its own."""
    generator = torch.Generator().manual_seed(number)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def write_film(
    path: Path,
    frames: Iterable[Tensor],
    times: Sequence[Fraction] | None = None,
    fps: Fraction = Fraction(24),
    encoding: Encoding = FAST,
    time_base: Fraction | None = None,
    colour: Colour | None = None,
    copy_from: Path | None = None,
    end: Fraction | None = None,
) -> Path:
    """Write a video of these frames."""
    frames = list(frames)
    _, height, width = frames[0].shape
    colour = colour or Colour()
    info = VideoInfo(width, height, fps, time_base or 1 / fps, colour=colour)
    with VideoWriter(path, info, encoding, copy_from) as writer:
        for number, pixels in enumerate(frames):
            writer.write(pixels, times[number] if times else number / fps)
        writer.close(end)
    return path


def with_sound(path: Path, seconds: float = 1.0, subtitles: str | None = None) -> Path:
    """Write a file with a tone, and without pictures; ``subtitles`` is a codec, two lines of which are added."""
    rate = 16000
    film = Film(shots=(max(1, round(seconds * 24)),), size=64)
    tone = film.audio(rate)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        text = None
        if subtitles:
            text = container.add_stream(subtitles)
            text.time_base = Fraction(1, 1000)
        for begin in range(0, len(tone) - 1023, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, begin : begin + 1024].copy(), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def other_packets(path: Path, kind: str = "audio") -> list[tuple[bytes, Fraction]]:
    """Return contents and time of all packets of the streams of a kind."""
    with av.open(str(path)) as container:
        return [
            (bytes(packet), packet.pts * packet.time_base)
            for packet in container.demux()
            if packet.stream.type == kind and packet.size
        ]


def raw_film(path: Path, rotation: float | None = None, mirrored: bool = False, frames: int = 2) -> np.ndarray:
    """Write a video with a display matrix, as a camera does; return the stored frame, (16,24,3)."""
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :12] = (255, 0, 0)
    stored[8:, :12] = (0, 255, 0)
    stored[:8, 12:] = (0, 0, 255)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=24, width=24, height=16, pix_fmt="rgb24", options={"crf": "0"})
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirrored)
        for number in range(frames):
            frame = VideoFrame.from_ndarray(stored, "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return stored


def deep_film(
    path: Path,
    codec: str = "libx264",
    count: int = 3,
    colour: Colour | None = None,
    size: tuple[int, int] = (96, 512),
    display: bool = False,
) -> Path:
    """Write a video with ten bits per colour: fine ramps of luma and chroma that move by four pixels per frame.

    ``display`` adds data on the mastering display, with libx265.
    """
    x265 = "lossless=1:log-level=error"
    if display:
        x265 += ":max-cll=1000,400:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {"libx264": {"qp": "0"}, "libx265": {"x265-params": x265}}.get(codec, {})
    height, width = size
    colour = colour or Colour()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec,
            rate=24,
            width=width,
            height=height,
            pix_fmt="yuv420p10le",
            options=options,
            time_base=Fraction(1, 24),
        )
        tag(stream.codec_context, colour, False)
        for number in range(count):
            frame = VideoFrame(width, height, "yuv420p10le")
            across = np.arange(width) - 4 * number
            for plane, (base, slope) in zip(frame.planes, ((100, 700), (420, 120), (640, -160)), strict=True):
                share = across[:: width // plane.width] % width / width
                rows(plane, plane.height, np.uint16)[:, : plane.width] = base + slope * share
            tag(frame, colour, False)
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def deep_planes(path: Path) -> list[list[np.ndarray]]:
    """Return luma and chroma of all frames of a video with more than eight bits, as it has them."""
    with av.open(str(path)) as container:
        return [
            [rows(plane, plane.height, np.uint16)[:, : plane.width].copy() for plane in frame.planes]
            for frame in container.decode(video=0)
        ]
