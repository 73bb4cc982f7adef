"""How fast films are decoded and encoded, beside a plain ffmpeg where there is one."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import torch
from torch import Tensor

from animegen.data.toonworld import Scene
from animegen.video.encoding import Encoding
from animegen.video.frames import VideoInfo
from animegen.video.reader import VideoReader
from animegen.video.writer import VideoWriter

SIZE = (720, 1280)
FPS = Fraction(24)
#: Frames that are drawn for the generated film, shown to and fro: drawing is slow, and not measured here.
DRAWN = 12
#: Length of the generated film, in frames.
LENGTH = 120


def measure(film: str | Path | None, seconds: float) -> dict[str, float | str]:
    """Measure decoding and encoding of a film for about ``seconds`` each; return the rows of a table.

    Args:
        film: a film of one's own; ``None`` generates one of 1280x720.
        seconds: how long to measure each.

    Raises:
        AnimegenError: if the film cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        if film is None:
            film = Path(folder) / "generated.mp4"
            _encode(film, VideoInfo(SIZE[1], SIZE[0], FPS, 1 / FPS), islice(_generated(), LENGTH))
        reader = VideoReader(film)
        info = reader.info
        frames, taken = 0, 0.0
        while taken < seconds:
            began = time.perf_counter()
            for count, _ in enumerate(reader, start=1):  # noqa: B007
                if taken + time.perf_counter() - began > seconds:
                    break
            frames, taken = frames + count, taken + time.perf_counter() - began
        rows: dict[str, float | str] = {
            "width": float(info.width),
            "height": float(info.height),
            "decode to RGB tensors, frames/s": frames / taken,
        }
        rows["ffmpeg to an RGB pipe, frames/s"] = _ffmpeg(film, info, seconds)
        some = [pixels for pixels, _ in islice(reader, 24)]
        for preset in ("medium", "veryfast"):
            target = Path(folder) / f"{preset}.mp4"
            rows[f"encode libx264 {preset}, frames/s"] = _encode_for(target, info, some, preset, seconds)
        return rows


def _generated() -> Iterator[Tensor]:
    scene = Scene(seed=0, split="test", index=0, size=SIZE, frames=DRAWN)
    drawn = [torch.from_numpy(scene.photo(number)).permute(2, 0, 1).contiguous() for number in range(DRAWN)]
    return cycle([*drawn, *drawn[-2:0:-1]])


def _encode(target: Path, info: VideoInfo, frames: Iterator[Tensor], preset: str = "medium") -> int:
    with VideoWriter(target, info, Encoding(preset=preset)) as writer:
        for number, pixels in enumerate(frames):
            writer.write(pixels, number / info.fps)
    return writer.count


def _encode_for(target: Path, info: VideoInfo, frames: list[Tensor], preset: str, seconds: float) -> float:
    began = time.perf_counter()

    def until() -> Iterator[Tensor]:
        for pixels in cycle([*frames, *frames[::-1]]):
            yield pixels
            if time.perf_counter() - began > seconds:
                return

    count = _encode(target, info, until(), preset)
    return count / (time.perf_counter() - began)


def _ffmpeg(film: str | Path, info: VideoInfo, seconds: float) -> float | str:
    """Return the frames per second that a process gets from ffmpeg through a pipe, or why there is no number."""
    command = shutil.which("ffmpeg")
    if command is None:
        return "no ffmpeg on the PATH"
    size = 3 * info.width * info.height
    words = [command, "-v", "error", "-stream_loop", "-1", "-i", str(film), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.read(size)  # it has started
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds and len(process.stdout.read(size)) == size:
            count += 1
        taken = time.perf_counter() - began
        process.kill()
    return count / taken if count else "ffmpeg did not decode it"
