"""Evaluation of a model on a video: every other drawing is left out, interpolated, and compared with the original."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from animegen.benchmarks.inbetween import InbetweenBenchmark
from animegen.benchmarks.tables import class_titles, rich_table
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.cadence import same_drawing
from animegen.media.video.flow import DISFlow
from animegen.media.video.frames import FrameReader
from animegen.tasks.protocols import Interpolator

Moment = tuple[Tensor, Fraction]


def left_out(reader: FrameReader, cuts: set[int]) -> Iterator[tuple[Moment, Moment, Moment]]:
    """Yield every other drawing of each shot with its neighbours: the first frames of three drawings, with their times.

    Args:
        reader: the video.
        cuts: numbers of the frames that begin a shot.
    """
    drawings: list[Moment] = []
    for number, (pixels, time) in enumerate(reader):
        if number in cuts:
            drawings = []
        if drawings and same_drawing(drawings[-1][0], pixels):
            continue
        drawings.append((pixels, time))
        if len(drawings) == 3:
            yield drawings[0], drawings[1], drawings[2]
            drawings = drawings[2:]


class SelfCheckBenchmark(InbetweenBenchmark):
    """The task *in-between* on drawings of a video that are left out, evenly spread over it.

    Args:
        reader: the video.
        cuts: numbers of the frames that begin a shot.
        samples: largest number of samples.
    """

    def __init__(self, reader: FrameReader, cuts: set[int], samples: int) -> None:
        super(InbetweenBenchmark, self).__init__()
        self.reader, self.cuts, self.samples = reader, cuts, samples
        self.task, self.perceptual, self.estimator = "inbetween_selfcheck", None, DISFlow()
        self.found = sum(1 for _ in left_out(reader, cuts))

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield one drawing at a time."""
        count = min(self.found, self.samples, limit or self.samples)
        chosen = {(2 * k + 1) * self.found // (2 * count) for k in range(count)}
        for number, (first, middle, last) in enumerate(left_out(self.reader, self.cuts)):
            if number not in chosen:
                continue
            t = torch.tensor([float((middle[1] - first[1]) / (last[1] - first[1]))])
            names = {"first": first, "truth": middle, "last": last}
            yield {name: to_float(pixels[None]).to(device) for name, (pixels, _) in names.items()} | {"t": t.to(device)}


def selfcheck(reader: FrameReader, model: Interpolator, device: torch.device, samples: int, cuts: bool = True) -> str:
    """Print how the model and the baselines draw the drawings that are left out; return a sentence about it.

    Raises:
        AnimegenError: if no shot has three drawings.
    """
    if samples < 1:
        raise AnimegenError(f"samples={samples} compares nothing: use 1 or more.")
    begins: set[int] = set()
    if cuts:
        from animegen.media.video.shots import detect_shots

        flashes: list[int] = []
        begins = {first for first, _ in detect_shots((pixels for pixels, _ in reader), flashes=flashes)} | {*flashes}
    benchmark = SelfCheckBenchmark(reader, begins, samples)
    if benchmark.found == 0:
        raise AnimegenError(f"No shot of '{reader.path}' has three different drawings: nothing can be left out.")
    scores = benchmark.evaluate({"model": benchmark.method_of(model)}, device)
    used = min(samples, benchmark.found)
    show = Console(highlight=False)
    show.print(rich_table(scores, f"{reader.path.name}, {used} drawings left out"))
    for label, heading in class_titles(benchmark.by_class).items():
        show.print(rich_table(benchmark.by_class[label], heading))
    return f"every other drawing was left out, {used} of {benchmark.found} were compared: {reader.path}"
