"""A film from file to file beside its parts: what is drawn alone, and decoding and encoding alone."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from animegen.config.looks import look_for
from animegen.errors import AnimegenError
from animegen.inference.application import load_applied
from animegen.inference.classical import ClassicalInterpolator
from animegen.inference.inbetweener import Inbetweener
from animegen.inference.interpolate import interpolate
from animegen.inference.options import InterpolateOptions, Method, StylizeOptions
from animegen.inference.stylist import Stylist
from animegen.inference.stylize import stylize
from animegen.inference.timegrid import Grid, between_frames
from animegen.media.video.frames import Original, VideoInfo
from animegen.media.video.reader import VideoReader
from animegen.media.video.writer import VideoWriter
from animegen.speed import video as codec
from animegen.tasks.protocols import Stylizer

#: Frames of the two films whose difference is measured, so that loading a model does not count.
SHORT, LONGEST = 3, 96
#: Both alternate, and the best of each counts.
TURNS = 2
NOISE = "lost in the work of other processes: seconds= longer, or an idle machine"


class Cost(NamedTuple):
    """Seconds per frame: elapsed, and of CPU time. The latter hardly depends on other work of the machine."""

    elapsed: float
    work: float


def measure(video: str | Path | None, seconds: float, threads: int | None = None) -> dict[str, float | str]:
    """Measure ``animegen stylize`` and ``animegen interpolate`` on a film; return the rows of a table.

    Args:
        video: a file; ``None`` generates a video of 1280x720.
        seconds: how long to measure each command and each of its parts, roughly.
        threads: of torch; ``None``: as they are.

    Raises:
        AnimegenError: if the video cannot be read, or has too few frames.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if video is None:
            info = VideoInfo(codec.SIZE[1], codec.SIZE[0], codec.FPS, 1 / codec.FPS)
            frames = list(islice(codec.generated(), LONGEST))
        else:
            reader = VideoReader(video)
            info, frames = reader.info, [pixels for pixels, _ in islice(reader, LONGEST)]
        if len(frames) < 2 * SHORT:
            raise AnimegenError(f"'{video}' has {len(frames)} frames: use a video of {2 * SHORT} frames or more.")
        rows: dict[str, float | str] = {"width": float(info.width), "height": float(info.height)}
        shared: dict[str, Any] = {"output": str(folder / "out.mp4"), "overwrite": True, "threads": threads}
        drawn = StylizeOptions(input="film.mp4", **shared)
        smooth = InterpolateOptions(input=["film.mp4"], method=Method.dis, **shared)
        for command, draw, run in (
            ("stylize", _stylized(drawn), lambda film: stylize(replace(drawn, input=str(film)))),
            ("interpolate", _between, lambda film: interpolate(replace(smooth, input=[str(film)]))),
        ):
            film = _Film(frames, info, folder, seconds)
            network, results = film.network(draw)
            rows |= _rows(command, film.whole(run), network, film.files(results))
        return rows


def _rows(command: str, whole: Cost, network: Cost, files: Cost) -> dict[str, float | str]:
    """Return the rows of a command; its shares are those of the slower part, and of both."""
    named = {"": whole, " network alone": network, " decoding and encoding alone": files}
    rows: dict[str, float | str] = {}
    for name, cost in named.items():
        rows[f"{command}{name}, frames/s"] = 1 / cost.elapsed if cost.elapsed > 0 else NOISE
        rows[f"{command}{name}, ms of CPU time per frame"] = 1000 * cost.work
    share = whole.elapsed / max(network.elapsed, files.elapsed)
    rows[f"{command}, elapsed beside the slower part"] = share if share > 0 else NOISE
    rows[f"{command}, CPU time beside both parts"] = whole.work / (network.work + files.work)
    return rows


class _Film:
    """Frames of a film, of which as many are used as there is time for."""

    def __init__(self, frames: Sequence[Tensor], info: VideoInfo, folder: Path, seconds: float) -> None:
        self.frames, self.info, self.folder, self.seconds = frames, info, folder, seconds

    def network(self, draw: Callable[[Iterable[Tensor]], list[Tensor]]) -> tuple[Cost, list[Tensor]]:
        """Return the cost of drawing alone, and what was drawn; from now on the film is as long as time allows."""
        once = _timed(lambda: draw(self.frames[:SHORT]), SHORT)  # also the first, slower pass
        count = min(max(int(self.seconds / once.elapsed), 2 * SHORT), len(self.frames))
        self.frames = self.frames[:count]
        results: list[Tensor] = []
        return _timed(lambda: results.extend(draw(self.frames)), count), results

    def files(self, results: list[Tensor]) -> Cost:
        """Return the cost, per frame of the source, of decoding it and of encoding what was drawn."""
        source = self._written(len(self.frames))
        each = -(-len(results) // len(self.frames))  # drawings per frame of the source

        def copy() -> None:
            with VideoWriter(self.folder / "copy.mp4", self.info) as target:
                for number, _ in enumerate(VideoReader(source)):
                    for place in range(number * each, min((number + 1) * each, len(results))):
                        target.write(results[place], place / self.info.fps)

        return _timed(copy, len(self.frames))

    def whole(self, run: Callable[[Path], object]) -> Cost:
        """Return the cost of a command per further frame."""
        count = len(self.frames)
        long, short = self._written(count), self._written(SHORT)
        run(short)  # imports, and the kernels of the first frames
        turns = [(_timed(lambda: run(short), 1), _timed(lambda: run(long), 1)) for _ in range(TURNS)]
        few, all_ = (Cost(*map(min, zip(*costs, strict=True))) for costs in zip(*turns, strict=True))
        return Cost(*((b - a) / (count - SHORT) for a, b in zip(few, all_, strict=True)))

    def _written(self, count: int) -> Path:
        path = self.folder / f"{count}.mp4"
        codec.write_film(path, self.info, iter(self.frames[:count]))
        return path


def _timed(act: Callable[[], object], frames: int) -> Cost:
    began, before = time.perf_counter(), codec.cpu_seconds()
    act()
    return Cost((time.perf_counter() - began) / frames, (codec.cpu_seconds() - before) / frames)


def _stylized(options: StylizeOptions) -> Callable[[Iterable[Tensor]], list[Tensor]]:
    """Return a function that draws frames in memory as ``animegen stylize`` draws those of a film."""
    look = look_for("stylize", videos=True)
    if look is None:
        raise AnimegenError("No look ships with this installation: install animegen again.")
    applied = load_applied(replace(options, checkpoint=str(look.file)), (Stylizer,), "stylize images")
    stylist = Stylist(applied.model, applied.device, None, applied.dtype, line_width=None)

    def draw(frames: Iterable[Tensor]) -> list[Tensor]:
        state, drawn = None, []
        for pixels in frames:
            result, state = stylist.follow(pixels, state)
            drawn.append(result)
        return drawn

    return draw


@torch.no_grad()
def _between(frames: Iterable[Tensor]) -> list[Tensor]:
    """Return frames with one between each two, drawn as ``animegen interpolate`` does without a model."""
    draw, grid = Inbetweener(ClassicalInterpolator(flow=True)), Grid(factor=2)
    moments = ((Original(pixels), Fraction(number)) for number, pixels in enumerate(frames))
    drawn: list[Tensor] = []
    for frame in between_frames(moments, Fraction, grid, lambda first, second: False, hold_last=False, neighbours=True):
        pixels = None if frame.last is None else draw(frame.first, frame.last, 0.5, frame.before, frame.after)
        drawn.append(frame.first.pixels if pixels is None else pixels)
    return drawn
