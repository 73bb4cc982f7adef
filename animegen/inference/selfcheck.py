"""Evaluation of a model on a video: every other drawing is left out, interpolated, and compared with the original."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from animegen.benchmarks.benchmark import Method
from animegen.benchmarks.inbetween import InbetweenBenchmark
from animegen.benchmarks.tables import class_titles, rich_table
from animegen.errors import AnimegenError
from animegen.inference.timegrid import neighbour
from animegen.media.images import to_float
from animegen.media.video.cadence import same_drawing
from animegen.media.video.flow import DISFlow
from animegen.media.video.frames import FrameReader
from animegen.tasks.protocols import Interpolator, NeighbourInterpolator

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


Triple = tuple[Moment, Moment, Moment]


def with_neighbours(triples: Iterable[Triple]) -> Iterator[tuple[Moment | None, Triple, Moment | None]]:
    """Yield the triples of :func:`left_out`, each with the drawing before its first and the one after its last.

    Both are given drawings as these are; ``None`` where the shot begins and ends.
    """
    for (previous, triple), (_, following) in pairwise(pairwise(chain([None], triples, [None]))):
        assert triple is not None
        before = previous[0] if previous is not None and previous[2] is triple[0] else None
        after = following[2] if following is not None and following[0] is triple[2] else None
        yield before, triple, after


class SelfCheckBenchmark(InbetweenBenchmark):
    """The task *in-between* on drawings of a video that are left out, evenly spread over it.

    Args:
        reader: the video.
        cuts: numbers of the frames that begin a shot.
        samples: largest number of samples.
        neighbours: give models that learn from them the drawings before and after each pair
            (:class:`~animegen.tasks.protocols.NeighbourInterpolator`). The baselines do without.
    """

    def __init__(self, reader: FrameReader, cuts: set[int], samples: int, neighbours: bool = False) -> None:
        super(InbetweenBenchmark, self).__init__()
        self.reader, self.cuts, self.samples, self.neighbours = reader, cuts, samples, neighbours
        self.task, self.perceptual, self.estimator = "inbetween_selfcheck", None, DISFlow()
        self.found = sum(1 for _ in left_out(reader, cuts))

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield one drawing at a time."""
        count = min(self.found, self.samples, limit or self.samples)
        chosen = {(2 * k + 1) * self.found // (2 * count) for k in range(count)}
        found = with_neighbours(left_out(self.reader, self.cuts))
        for number, (before, (first, middle, last), after) in enumerate(found):
            if number not in chosen:
                continue
            length = last[1] - first[1]
            t = torch.tensor([float((middle[1] - first[1]) / length)])
            names = {"first": first, "truth": middle, "last": last}
            batch: dict[str, Any] = {name: to_float(pixels[None]).to(device) for name, (pixels, _) in names.items()}
            batch |= {"t": t.to(device), "before": None, "after": None}
            if self.neighbours and before is not None:
                batch["before"] = neighbour(to_float(before[0][None]).to(device), (first[1] - before[1]) / length)
            if self.neighbours and after is not None:
                batch["after"] = neighbour(to_float(after[0][None]).to(device), (after[1] - last[1]) / length)
            yield batch

    def method_of(self, model: Interpolator) -> Method:
        """Return a model as a method on pairs, times and the drawings before and after."""
        if not isinstance(model, NeighbourInterpolator):
            return super().method_of(model)

        def run(batch: dict[str, Any]) -> Tensor:
            first, last, before, after = (batch[name] for name in ("first", "last", "before", "after"))
            encoded = model.encode_pair(first, last)
            early = None if before is None else (model.encode_pair(before.frame, first), before.length)
            late = None if after is None else (model.encode_pair(last, after.frame), after.length)
            return model.synthesize(model.encode_among(encoded, early, late), batch["t"])

        return run

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Apply the method to the pair, the times, and the drawings before and after."""
        return method({key: batch[key] for key in ("first", "last", "t", "before", "after")})


def selfcheck(
    reader: FrameReader,
    model: Interpolator,
    device: torch.device,
    samples: int,
    cuts: bool = True,
    neighbours: bool = False,
) -> str:
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
    benchmark = SelfCheckBenchmark(reader, begins, samples, neighbours)
    if benchmark.found == 0:
        raise AnimegenError(f"No shot of '{reader.path}' has three different drawings: nothing can be left out.")
    scores = benchmark.evaluate({"model": benchmark.method_of(model)}, device)
    used = min(samples, benchmark.found)
    show = Console(highlight=False)
    show.print(rich_table(scores, f"{reader.path.name}, {used} drawings left out"))
    for label, heading in class_titles(benchmark.by_class).items():
        show.print(rich_table(benchmark.by_class[label], heading))
    return f"every other drawing was left out, {used} of {benchmark.found} were compared: {reader.path}"
