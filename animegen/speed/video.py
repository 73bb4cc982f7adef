"""Speed of decoding and encoding videos, compared with ffmpeg if it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import VideoInfo
from animegen.media.video.reader import VideoReader
from animegen.media.video.writer import VideoWriter
from animegen.toonworld import Scene

SIZE = (720, 1280)
FPS = Fraction(24)
#: Frames drawn for the generated video, played forwards and backwards: drawing is slow, and not measured here.
DRAWN = 12
#: Length of the generated video, in frames.
LENGTH = 120
#: Decoding and ffmpeg alternate, and the best of each counts, since other processes slow them down.
#: On a busy machine, where two processes get a larger share than one, CPU time is more reliable than elapsed time.
TURNS = 5


class Turn(NamedTuple):
    """Result of one turn: frames per second, and seconds of CPU time per frame."""

    rate: float
    work: float


def measure(video: str | Path | None, seconds: float) -> dict[str, float | str]:
    """Measure decoding and encoding of a video for about ``seconds`` each; return the rows of a table.

    Args:
        video: a file; ``None`` generates a video of 1280x720.
        seconds: how long to measure each.

    Raises:
        AnimegenError: if the video cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        if video is None:
            video = Path(folder) / "generated.mp4"
            write_film(video, VideoInfo(SIZE[1], SIZE[0], FPS, 1 / FPS), islice(generated(), LENGTH))
        reader = VideoReader(video)
        info = reader.info
        ours: list[Turn] = []
        theirs: list[Turn | str] = []
        for _ in range(TURNS):
            ours.append(_decode(reader, seconds / TURNS))
            theirs.append(_ffmpeg(video, info, seconds / TURNS))
        rows: dict[str, float | str] = {"width": float(info.width), "height": float(info.height)}
        rows |= _rates("decode to RGB tensors", ours) | _rates("ffmpeg to an RGB pipe", theirs)
        measured = [turn for turn in theirs if isinstance(turn, Turn)]
        if measured:
            mine, plain = min(turn.work for turn in ours), min(turn.work for turn in measured)
            rows["decode, times less CPU time than ffmpeg"] = plain / mine
        some = [pixels for pixels, _ in islice(reader, 24)]
        for preset in ("medium", "veryfast"):
            target = Path(folder) / f"{preset}.mp4"
            rows[f"encode libx264 {preset}, frames/s"] = _encode_for(target, info, some, preset, seconds)
        return rows


def _rates(name: str, turns: Sequence[Turn | str]) -> dict[str, float | str]:
    """Return the rows of a decoder: its best turn, or the reason that there is none."""
    measured = [turn for turn in turns if isinstance(turn, Turn)]
    if not measured:
        return {f"{name}, frames/s": str(turns[0])}
    return {
        f"{name}, frames/s": max(turn.rate for turn in measured),
        f"{name}, ms of CPU time per frame": 1000 * min(turn.work for turn in measured),
    }


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the processes that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _decode(reader: Iterable[object], seconds: float) -> Turn:
    """Decode whole videos for at least the given number of seconds."""
    frames, began, before = 0, time.perf_counter(), cpu_seconds()
    while frames == 0 or time.perf_counter() - began < seconds:
        frames += sum(1 for _ in reader)
    return Turn(frames / (time.perf_counter() - began), (cpu_seconds() - before) / frames)


def generated(size: tuple[int, int] | None = None) -> Iterator[Tensor]:
    """Yield frames of a generated video without end, uint8 ``(3,H,W)``; ``None``: of :data:`SIZE`."""
    scene = Scene(seed=0, split="test", index=0, size=size or SIZE, frames=DRAWN)
    drawn = [torch.from_numpy(scene.photo(number)).permute(2, 0, 1).contiguous() for number in range(DRAWN)]
    return cycle([*drawn, *drawn[-2:0:-1]])


def write_film(target: Path, info: VideoInfo, frames: Iterator[Tensor], preset: str = "medium") -> int:
    """Write a video at the rate of ``info``; return the number of its frames."""
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

    count = write_film(target, info, until(), preset)
    return count / (time.perf_counter() - began)


def _ffmpeg(video: str | Path, info: VideoInfo, seconds: float) -> Turn | str:
    """Decode whole videos with ffmpeg through a pipe for at least the given time; return the reason if it fails."""
    command = shutil.which("ffmpeg")
    if command is None:
        return "no ffmpeg on the PATH"
    size = 3 * info.width * info.height
    words = [command, "-v", "error", "-i", str(video), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    frames, began, before = 0, time.perf_counter(), cpu_seconds()
    while frames == 0 or time.perf_counter() - began < seconds:
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            found = 0
            while len(process.stdout.read(size)) == size:
                found += 1
        if not found:
            return "ffmpeg did not decode it"
        frames += found
    return Turn(frames / (time.perf_counter() - began), (cpu_seconds() - before) / frames)
