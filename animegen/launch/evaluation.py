"""Scores of a model on its task next to the trivial baselines, and the files of the result."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from torch import Tensor

from animegen.benchmarks.benchmark import Benchmark
from animegen.benchmarks.clips import clip_benchmark
from animegen.benchmarks.generation import generation_benchmark
from animegen.benchmarks.inbetween import inbetween_benchmark
from animegen.benchmarks.keyframes import keyframe_benchmark
from animegen.benchmarks.stylise import StyliseBenchmark
from animegen.benchmarks.tables import (
    WideTable,
    class_titles,
    image_strip,
    markdown_classes,
    markdown_table,
    rich_table,
    to_json,
)
from animegen.benchmarks.variants import variants_benchmark
from animegen.data import AnimeDataModule
from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.nn.features import FeatureExtractor
from animegen.outputs import OutputFolder
from animegen.reports.pareto import PARETO, pareto_plot
from animegen.reports.plots import png
from animegen.reports.samples import save_samples
from animegen.reports.summary import of_result
from animegen.tasks.protocols import Interpolator, Stylizer

#: The files of an evaluation, in the order in which they are written; the last one marks the set as complete.
SCORE_FILES = ("table.md", "strip.png", "samples/*/*.png", "samples/index.json", PARETO, "scores.json")


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model and of the baselines.

    Attributes:
        result: content of ``scores.json``.
        tables: the scores for the terminal.
        markdown: the scores for ``table.md``.
        headers: titles of the columns of images.
        rows: per sample an image (3, H, W) in [-1, 1] for each column.
        note: sentence about test samples that are left out.
    """

    result: dict[str, Any]
    tables: list[WideTable]
    markdown: str
    headers: list[str]
    rows: list[list[Tensor]]
    note: str | None = None

    def write(self, folder: OutputFolder) -> None:
        """Write `SCORE_FILES`, replacing older ones, which stay if this fails.

        Args:
            folder: locked by this command.

        Raises:
            AnimegenError: if the folder cannot be written, or another file has one of these names.
        """
        place = folder.path
        with folder.replacing(SCORE_FILES, old=SCORE_FILES, until=SCORE_FILES[-1]):
            with completed(place / "table.md") as hidden:
                hidden.write_text(self.markdown, "utf-8")
            image_strip(self.rows, self.headers, place / "strip.png", overwrite=True)
            save_samples(self.headers, self.rows, place / "samples")
            if (figure := pareto_plot(of_result(self.result))) is not None:
                with completed(place / PARETO) as hidden:
                    hidden.write_bytes(png(figure))
            with completed(place / "scores.json") as hidden:
                hidden.write_text(json.dumps(self.result, indent=2) + "\n")

    def show(self, folder: OutputFolder | None) -> None:
        """Print the tables, and the path of the image strip."""
        console = Console(highlight=False)
        for table in self.tables:
            console.print(table)
        if self.note is not None:
            print(self.note)
        if folder is not None:
            print(f"image strip: {folder.path / 'strip.png'}")


def scoring_features(features: FeatureExtractor | None) -> FeatureExtractor:
    """Return the network of feature distances by that of a training.

    Without one it is small and random, which takes no download; the names of its metrics contain ``random``.
    """
    return features or FeatureExtractor("squeezenet1_1", "random")


def evaluate_model(
    model: AnimeModule,
    data: AnimeDataModule,
    features: FeatureExtractor | None = None,
    samples: int | None = None,
    batch_size: int = 8,
    benchmark: Benchmark | None = None,
) -> Evaluation | None:
    """Score a model and the baselines on the test set of its data, or else the validation set.

    Args:
        model: with a task that has a benchmark; EMA weights are used if there are any.
        data: its data.
        features: network for feature distances; ``None`` omits them.
        samples: number of test samples; ``None`` takes all.
        batch_size: samples per batch.
        benchmark: by default that of the task.

    Returns:
        The scores, or ``None`` if there is no benchmark for the model and the data.
    """
    arguments = (data, features, samples, batch_size)
    if isinstance(model, Interpolator):
        benchmark = benchmark or inbetween_benchmark(*arguments)
    elif isinstance(model, Stylizer):
        benchmark = benchmark or keyframe_benchmark(*arguments) or stylise_benchmark(*arguments)
    else:
        return None
    return None if benchmark is None else evaluate_on(benchmark, model)


def evaluate_on(benchmark: Benchmark, model: AnimeModule) -> Evaluation:
    """Score a model and the baselines on a benchmark."""
    methods = {"model": benchmark.method_of(model)}
    with model.applied():
        scores = benchmark.evaluate(methods, model.device)
        headers, rows = benchmark.sample_rows(methods, count=6, device=model.device)
    result = to_json(scores, benchmark.task, benchmark.main, benchmark.privileged, benchmark.by_class)
    if derived := [name for name in scores if name not in methods and name not in benchmark.baselines]:
        result["derived"] = derived
    title = f"{benchmark.task}, {model.train_step} train steps"
    tables = [rich_table(scores, title, privileged=benchmark.privileged)]
    for label, heading in class_titles(benchmark.by_class).items():
        tables.append(rich_table(benchmark.by_class[label], heading, privileged=benchmark.privileged))
    markdown = markdown_table(scores, privileged=benchmark.privileged)
    markdown += markdown_classes(benchmark.by_class, benchmark.privileged)
    markdown += f"\n{benchmark.note}\n" if benchmark.note else ""
    return Evaluation(result, tables, markdown, headers, rows, benchmark.note)


def stylise_benchmark(
    data: AnimeDataModule, features: FeatureExtractor | None, samples: int | None, batch_size: int
) -> StyliseBenchmark | None:
    """Return the benchmark of stylization on these data, or ``None`` if they cannot be scored."""
    test = data.test or data.val
    train = data.train.sources
    if test is None or "photo" not in test.sources or not {"photo", "anime"} <= set(train):
        return None
    paired = "anime" in test.sources
    stills = data.stills
    if not paired and stills is None:
        return None
    for view in (test, data.train, stills):
        if view is not None:
            view.prepare()
    aligned = any({"photo", "anime"} <= set(group) for group in data.train.aligned)
    truths = train["anime"] if aligned else twin(train["photo"], train["anime"])
    return StyliseBenchmark(
        test,
        train["photo"],
        train["anime"],
        train_truths=truths,
        stills=stills,
        paired=paired,
        extractor=features,
        batch_size=batch_size,
        limit=samples,
    )


def twin(photos: Any, animes: Any) -> Any | None:
    """Return the drawings of ``photos`` in the style of ``animes`` if the source can generate them."""
    look, other = getattr(animes, "look", None), getattr(photos, "in_look", None)
    return other(look) if look is not None and other is not None else None


def chosen_benchmark(
    settings: dict[str, Any],
    model: AnimeModule,
    data: AnimeDataModule | None,
    features: FeatureExtractor | None,
    samples: int | None,
    batch_size: int,
) -> Benchmark:
    """Build the benchmark of ``benchmark=...``; ``data`` is ``None`` for a look, which has none.

    Raises:
        AnimegenError: if it does not apply to the model.
    """
    built = {"generation_benchmark": generation_benchmark, "variants_benchmark": variants_benchmark}
    generation = built.get(settings["_target_"].rpartition(".")[2])
    if not isinstance(model, Interpolator if generation else Stylizer):
        what = "generate frames between frames" if generation else "stylize photos and videos"
        raise AnimegenError(
            f"benchmark= scores models that {what}, and {type(model).__name__} does not: leave benchmark= out."
        )
    if generation and data is None:
        raise AnimegenError("The model comes without data to score on: choose some with data=clips/toonworld.")
    if generation:
        return generation(settings, data, model, features, samples, batch_size)
    return clip_benchmark(settings, model.run_info["config"].get("data") or {}, data)
