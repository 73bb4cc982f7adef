"""Benchmarks: methods x metrics on the same images, with trivial baselines among the methods.

A `Benchmark` is one task on one test set. A subclass defines the batches, how a method is applied to a batch, the
metrics, and the baselines. The base class runs all methods on the same batches and returns plain numbers,
{method: {metric: {"mean", "std", "n"}}}. `registry.METRICS` has the unit and the direction of each metric.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.status import Status
from torch import Tensor

from animegen.benchmarks.baselines import Identity
from animegen.benchmarks.registry import PRIVILEGED
from animegen.errors import AnimegenError
from animegen.metrics.distribution import SetDistance

SAMPLES = 64
"""Test samples that are used by default, evenly spread over the test set."""

Score = dict[str, float | int | None]
"""Mean, standard deviation over the images (None without images) and their number."""

Scores = dict[str, dict[str, Score]]
"""{method: {metric: score}}."""

#: Label of the scores on all samples, as opposed to those of a class.
_ALL = ""

Method = Callable[..., Tensor]
"""Anything that a benchmark can apply to a batch; for photos (B, 3, H, W) -> (B, 3, H, W) in [-1, 1]."""


class Measured(NamedTuple):
    """Measurements on a batch of outputs.

    Attributes:
        values: one value per image (B,) for each metric.
        kept: (B, ...) data of the outputs that metrics on whole sets need, on the CPU, or None.
    """

    values: dict[str, Tensor]
    kept: Tensor | None = None


class Benchmark(ABC):
    """Task on a test set.

    Scores are never returned without those of the baselines, which are fitted and scored on the first call and cached.
    Later calls score the model only.

    Attributes:
        task: name of the task.
        main: the metric by which runs are ranked; see `registry.metric_info` for its direction.
        privileged: names of baselines that use more information than a model, and are excluded from rankings.
        classes: classes of samples in display order; empty if samples are not divided into classes.
        by_class: scores on the samples of each class, set by `evaluate`.
    """

    task: str
    main: str
    privileged: frozenset[str] = PRIVILEGED
    classes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._baselines: dict[str, Method] | None = None
        self._baseline_scores: dict[str, Scores] = {}
        self.by_class: dict[str, Scores] = {}

    def method_of(self, model: Any) -> Method:
        """Return a model (`Stylizer`) as a method that processes images independently."""
        return lambda photo: model.stylize(photo, None)[0]

    @abstractmethod
    def fit_baselines(self) -> dict[str, Method]:
        """Return the fitted baselines by name."""

    @abstractmethod
    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the test set, or `limit` samples spread evenly over it, in batches; deterministic."""

    @abstractmethod
    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Return a method's output for a batch."""

    @abstractmethod
    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Measure outputs (B, 3, H, W), finite and in [-1, 1]."""

    @abstractmethod
    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the inputs and the truth that `sample_rows` shows to the left and to the right of the outputs."""

    def measure_sets(self, kept: Tensor) -> dict[str, SetDistance | None]:
        """Return the metrics on the set of all outputs of a method; None if there are too few."""
        return {}

    def class_of(self, batch: dict[str, Any]) -> list[str]:
        """Return the class of each sample of a batch, one of `classes`; a benchmark with classes has to define it."""
        raise NotImplementedError

    @property
    def note(self) -> str | None:
        """Sentence about the samples that are left out, if there are any."""
        total, limit = len(getattr(self, "test", ())), getattr(self, "limit", None)
        if limit is None or limit >= total:
            return None
        return f"{limit} of {total} test samples, evenly spread; samples=null uses all."

    @property
    def baselines(self) -> dict[str, Method]:
        """The fitted baselines by name."""
        if self._baselines is None:
            self._baselines = self.fit_baselines()
        return self._baselines

    @torch.no_grad()
    def evaluate(self, methods: Mapping[str, Method], device: torch.device | str = "cpu") -> Scores:
        """Score methods and the baselines on the test set.

        Args:
            methods: callables by name; networks in eval mode and on `device`.
            device: device of the batches and metrics.

        Returns:
            {method: {metric: {"mean", "std", "n"}}}, baselines first. The values of a method with an output that is not
            finite are NaN.

        Raises:
            AnimegenError: if a method has the name of a baseline or returns images of another shape.
        """
        self._check_names(methods)
        known = self._baseline_scores.get(_ALL, {})
        unscored = {name: method for name, method in self.baselines.items() if name not in known}
        scored = self._score({**unscored, **methods}, torch.device(device))
        for label, scores in scored.items():
            self._baseline_scores.setdefault(label, {}).update({name: scores[name] for name in unscored})
            scored[label] = {**self._baseline_scores[label], **{name: scores[name] for name in methods}}
        self.by_class = {label: scored[label] for label in self.classes if label in scored}
        return scored[_ALL]

    @torch.no_grad()
    def sample_rows(
        self, methods: Mapping[str, Method], count: int = 4, device: torch.device | str = "cpu"
    ) -> tuple[list[str], list[list[Tensor]]]:
        """Return headers and rows (one per sample: inputs, baselines, methods, truth) for `table.image_strip`.

        `count` samples, spread over the test set; images are (3, H, W) in [-1, 1] on the CPU.
        """
        self._check_names(methods)
        # The identity would repeat the column of the input.
        shown = {name: method for name, method in self.baselines.items() if not isinstance(method, Identity)}
        columns: dict[str, list[Tensor]] = {}
        for batch in self.batches(torch.device(device), limit=count):
            left, right = self.shown(batch)
            outputs = {name: self._run(name, method, batch) for name, method in {**shown, **methods}.items()}
            for name, images in {**left, **outputs, **right}.items():
                columns.setdefault(name, []).extend(images.float().cpu())
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def _check_names(self, methods: Mapping[str, Method]) -> None:
        for name in methods:
            if name in self.baselines:
                raise AnimegenError(f"The method '{name}' has the name of a baseline: give it another one.")

    def _run(self, name: str, method: Method, batch: dict[str, Any]) -> Tensor:
        output = self.apply(method, batch)
        expected = next(iter(self.shown(batch)[0].values())).shape
        if output.shape != expected:
            raise AnimegenError(
                f"The method '{name}' returned images of shape {tuple(output.shape)} where {tuple(expected)}"
                " was expected: a method must keep size and channels."
            )
        return output.float()

    def _score(self, methods: Mapping[str, Method], device: torch.device) -> dict[str, Scores]:
        """Return the scores on all samples, under the label "", and on those of each class."""
        labels: list[str] = []
        values: dict[str, dict[str, list[Tensor]]] = {name: {} for name in methods}
        kept: dict[str, list[Tensor]] = {name: [] for name in methods}
        for batch in self._counted(self.batches(device), f"scoring {len(methods)} methods"):
            if self.classes:
                labels += self.class_of(batch)
            for name, method in methods.items():
                output = self._run(name, method, batch)
                finite = output.isfinite().flatten(1).all(1).cpu()
                with torch.autocast(device.type, enabled=False):
                    # As stored in an image file: values outside the range are clipped.
                    measured = self.measure(batch, output.nan_to_num(0).clamp(-1, 1))
                for metric, value in measured.values.items():
                    values[name].setdefault(metric, []).append(value.cpu().double().masked_fill(~finite, torch.nan))
                if measured.kept is not None:
                    kept[name].append(measured.kept.index_fill(0, (~finite).nonzero()[:, 0], torch.nan))
        whole = {name: {metric: torch.cat(parts) for metric, parts in row.items()} for name, row in values.items()}
        scores = {_ALL: {name: {metric: summary(v) for metric, v in row.items()} for name, row in whole.items()}}
        for name in methods:
            if kept[name]:
                scores[_ALL][name].update(self._score_sets(torch.cat(kept[name])))
        for label in dict.fromkeys(labels):
            mine = torch.tensor([one == label for one in labels])
            scores[label] = {
                name: {metric: summary(v[mine]) for metric, v in row.items()} for name, row in whole.items()
            }
        return scores

    def _counted(self, batches: Iterator[dict[str, Any]], title: str) -> Iterator[dict[str, Any]]:
        """Yield batches; show how many samples are done, without a terminal at most every ten seconds."""
        done, said = 0, time.monotonic()
        bar = Status(title, console=Console(stderr=True)) if sys.stderr.isatty() else None
        with bar or nullcontext():
            for batch in batches:
                yield batch
                done += len(next(iter(self.shown(batch)[0].values())))
                text = f"{title}: {done} samples"
                if bar is not None:
                    bar.update(text)
                elif time.monotonic() - said > 10:
                    said = time.monotonic()
                    print(text, file=sys.stderr, flush=True)

    def _score_sets(self, kept: Tensor) -> dict[str, Score]:
        valid = bool(kept.isfinite().all())
        scores: dict[str, Score] = {}
        for metric, distance in self.measure_sets(kept.nan_to_num(0)).items():
            if distance is not None:
                mean = distance.value if valid else float("nan")
                scores[metric] = {"mean": mean, "std": distance.spread if valid else None, "n": len(kept)}
        return scores


def summary(values: Tensor) -> Score:
    """Return mean, standard deviation (of the sample; None for a single image) and number of values (N,)."""
    spread = float(values.std()) if len(values) > 1 else None
    return {"mean": float(values.mean()), "std": spread, "n": len(values)}


def spread(numbers: Sequence[int], limit: int | None) -> Sequence[int]:
    """Return `limit` of the numbers, evenly spread; all of them if there are not more."""
    if limit is None or limit >= len(numbers):
        return numbers
    return [numbers[(2 * k + 1) * len(numbers) // (2 * limit)] for k in range(limit)]
