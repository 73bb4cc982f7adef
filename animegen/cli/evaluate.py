"""``animegen eval``: score a checkpoint on its task, always beside the trivial baselines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from animegen.benchmarks.benchmark import Benchmark, StyliseBenchmark
from animegen.benchmarks.clips import clip_benchmark
from animegen.benchmarks.generation import generation_benchmark
from animegen.benchmarks.inbetween import inbetween_benchmark
from animegen.benchmarks.keyframes import keyframe_benchmark
from animegen.benchmarks.tables import (
    class_titles,
    markdown_classes,
    markdown_table,
    picture_strip,
    rich_table,
    to_json,
)
from animegen.cli.main import run
from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.data import AnimeDataModule
from animegen.engine.checkpoint import check_targets, load_model, pick_device
from animegen.engine.module import AnimeModule
from animegen.engine.runs import merged_overrides, resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.nn.features import FeatureExtractor
from animegen.reports.pareto import PARETO, pareto_plot
from animegen.reports.plots import png
from animegen.reports.samples import save_samples
from animegen.reports.summary import of_result
from animegen.tasks.protocols import Interpolator, Stylizer

HELP = """animegen eval checkpoint=<last|run folder|file> [key=value ...]

  animegen eval checkpoint=last
  animegen eval checkpoint=last benchmark=clips       # steadiness on clips of the generated world
  animegen eval checkpoint=last benchmark=clips benchmark.film=film.mp4       # ... and on your own film
  animegen eval checkpoint=last benchmark=generation  # whole clips between two frames
  animegen eval checkpoint=runs/quickstart data=unpaired/folders data.photos=photos data.anime=stills features=vgg19

keys: checkpoint=last|<run folder>|<.ckpt file>, device, threads, weights=ema|raw, samples, batch_size, output=<folder>,
      overwrite, runs, data=... (default: what the checkpoint was trained on; data.<key>=... changes it),
      benchmark=none|clips (benchmark.film, .style, .clips, .frames, .size, .intervals, .keys, .hold)|
      generation (benchmark.network, .size, .frames),
      features=random|none|squeezenet1_1|alexnet|vgg16|vgg19 (features.weights=<file>)"""


def evaluate_model(
    model: AnimeModule,
    data: AnimeDataModule,
    folder: Path | None = None,
    features: FeatureExtractor | None = None,
    samples: int | None = None,
    batch_size: int = 8,
    benchmark: Benchmark | None = None,
) -> dict[str, Any] | None:
    """Score a model on the test set of its data (or else the validation set), beside the baselines.

    Args:
        model: a model whose task has a benchmark; EMA weights are used if it keeps any.
        data: its data.
        folder: where ``scores.json``, ``table.md``, ``strip.png`` and the folder ``samples`` go, and of clips
            ``pareto.png``, replacing older ones; ``None`` writes nothing.
        features: network for feature distances; ``None`` leaves these out.
        samples: number of test samples; ``None`` takes all.
        batch_size: samples per batch.
        benchmark: the benchmark to run; by default that of the task on the model's own data.

    Returns:
        What ``scores.json`` holds, or ``None`` if there is no benchmark for such a model and such data.
    """
    arguments = (data, features, samples, batch_size)
    if isinstance(model, Interpolator):
        benchmark = benchmark or inbetween_benchmark(*arguments)
    elif isinstance(model, Stylizer):
        benchmark = benchmark or keyframe_benchmark(*arguments) or stylise_benchmark(*arguments)
    else:
        return None
    if benchmark is None:
        return None
    methods = {"model": benchmark.method_of(model)}
    with model.applied():
        scores = benchmark.evaluate(methods, model.device)
        headers, rows = benchmark.pictures(methods, count=6, device=model.device)
    result = to_json(scores, benchmark.task, benchmark.main, benchmark.privileged, benchmark.by_class)
    if derived := [name for name in scores if name not in methods and name not in benchmark.baselines]:
        result["derived"] = derived
    title = f"{benchmark.task}, {model.train_step} train steps"
    show = Console(highlight=False)
    show.print(rich_table(scores, title, privileged=benchmark.privileged))
    for label, heading in class_titles(benchmark.by_class).items():
        show.print(rich_table(benchmark.by_class[label], heading, privileged=benchmark.privileged))
    if folder is not None:
        with completed(folder / "table.md") as hidden:
            table = markdown_table(scores, privileged=benchmark.privileged)
            hidden.write_text(table + markdown_classes(benchmark.by_class, benchmark.privileged))
        picture_strip(rows, headers, folder / "strip.png", overwrite=True)
        save_samples(headers, rows, folder / "samples")
        if (figure := pareto_plot(of_result(result))) is not None:
            with completed(folder / PARETO) as hidden:
                hidden.write_bytes(png(figure))
        with completed(folder / "scores.json") as hidden:  # last: a folder that holds it is whole
            hidden.write_text(json.dumps(result, indent=2) + "\n")
        print(f"photo, baselines, model and truth side by side: {folder / 'strip.png'}")
    return result


def stylise_benchmark(
    data: AnimeDataModule, features: FeatureExtractor | None, samples: int | None, batch_size: int
) -> StyliseBenchmark | None:
    """Return the benchmark of *stylise* for these data, or ``None`` if they cannot be scored."""
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
    """Return the drawings of ``photos`` in the look of ``animes`` if the source can make them (the generated world)."""
    look, other = getattr(animes, "look", None), getattr(photos, "in_look", None)
    return other(look) if look is not None and other is not None else None


def chosen_benchmark(
    settings: dict[str, Any],
    model: AnimeModule,
    data: AnimeDataModule,
    features: FeatureExtractor | None,
    samples: int | None,
    batch_size: int,
) -> Benchmark:
    """Build the benchmark that ``benchmark=...`` names, for a model that it can score."""
    generation = settings["_target_"].endswith(".generation_benchmark")
    if not isinstance(model, Interpolator if generation else Stylizer):
        what = "frames between frames" if generation else "photos and films"
        raise AnimegenError(
            f"benchmark= scores models that draw {what}, and {type(model).__name__} does not: leave benchmark= out."
        )
    if generation:
        return generation_benchmark(settings, data, model, features, samples, batch_size)  # type: ignore[arg-type]
    return clip_benchmark(settings, model.run_info["config"]["data"], data)


def data_of(checkpoint: Path, model: AnimeModule, words: list[str]) -> AnimeDataModule:
    """Build the data of an evaluation: the checkpoint's own, or what ``data=...`` words choose."""
    info = model.run_info
    if not words:
        config = info["config"]["data"]
    elif any(word.startswith("data=") for word in words):
        chosen = [f"size={info.get('choices', {}).get('size', 'small')}", f"seed={info['config'].get('seed', 0)}"]
        config = plain(compose_config("train", [*chosen, *words]))["data"]
    else:
        config = plain(compose_config("train", merged_overrides(info.get("overrides", []), words)))["data"]
    check_targets(config, checkpoint, packages=("animegen.data", "animegen.toonworld"), base=None)
    return build(config, "data")


def evaluate(words: list[str]) -> dict[str, Any]:
    """Run the verb."""
    mine = [w for w in words if w.startswith(("data=", "data.", "size=", "size."))]
    config = compose_config("eval", [w for w in words if w not in mine])
    folder = Path(config.output) if config.output else None
    if folder is not None and (folder / "scores.json").exists() and not config.overwrite:
        raise AnimegenError(f"'{folder}' already holds scores: choose another output= or set overwrite=true.")
    checkpoint = resolve_checkpoint(config.checkpoint, config.runs)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device.value)
    model = load_model(checkpoint, device, config.weights)
    data = data_of(checkpoint, model, mine)
    features = build(config.features, "features") or None
    chosen = None
    if config.benchmark:
        chosen = chosen_benchmark(plain(config)["benchmark"], model, data, features, config.samples, config.batch_size)
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)  # before the work
        except OSError as error:
            raise AnimegenError(f"'{folder}' cannot be written ({error.strerror}): choose another output=.") from error
    result = evaluate_model(model, data, folder, features, config.samples, config.batch_size, chosen)
    if result is None:
        raise AnimegenError(
            f"{type(model).__name__} cannot be scored on these data: they have neither drawings of their test photos"
            " nor held-out stills; choose data=unpaired/toonworld, or data=unpaired/folders with both folders."
        )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen eval`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return
        evaluate(words)

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
