"""Score a checkpoint on its task, next to the trivial baselines."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from animegen.benchmarks.photos import PhotoBenchmark
from animegen.config.compose import check_data_paths, compose_config, literal_paths, plain
from animegen.config.instantiate import build
from animegen.config.recorded import REMEDY, compose_recorded, recorded_words
from animegen.config.trust import build_from, named_in
from animegen.data import AnimeDataModule
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.module import AnimeModule
from animegen.engine.runs import merged_overrides, resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import user_path
from animegen.launch.evaluation import (
    SCORE_FILES,
    Evaluation,
    chosen_benchmark,
    evaluate_model,
    evaluate_on,
    scoring_features,
)
from animegen.outputs import OutputFolder
from animegen.tasks.protocols import Stylizer


def data_of(checkpoint: Path, model: AnimeModule, words: list[str], trust: bool = False) -> AnimeDataModule:
    """Build the data of an evaluation: those of the checkpoint, or those that ``data=...`` selects.

    Args:
        checkpoint: of the model.
        model: the loaded model.
        words: overrides about data.
        trust: build any class that the checkpoint names.
    """
    info, source = model.run_info, f"The checkpoint '{checkpoint}'"
    if not words:
        config = info["config"].get("data")
    else:
        recorded = info.get("overrides", [])
        if any(word.startswith("data=") for word in words):
            recorded = [f"size={info.get('choices', {}).get('size', 'small')}", f"seed={info['config'].get('seed', 0)}"]
        recorded = recorded if trust else recorded_words(recorded, source)
        config = compose_recorded(merged_overrides(recorded, words), source)["data"]
    check_data_paths(config or {}, source)
    data = build_from(config, "data", source, REMEDY, named_in(words), trust=trust)
    if not isinstance(data, AnimeDataModule):
        raise AnimegenError(f"{source} has no data to score on: choose some with data=...")
    return data


def evaluate(words: list[str]) -> dict[str, Any]:
    """Run the command; return the content of ``scores.json``."""
    words = literal_paths("eval", words)
    mine = [w for w in words if w.startswith(("data=", "data.", "size=", "size."))]
    config = compose_config("eval", [w for w in words if w not in mine])
    with contextlib.ExitStack() as held:
        folder = OutputFolder(config.output) if config.output else None
        if folder is not None:
            held.enter_context(folder.held())
            folder.check(SCORE_FILES)
            if folder.files(SCORE_FILES) and not config.overwrite:
                raise AnimegenError(f"'{folder.path}' already holds scores: choose another output= or overwrite=true.")
        evaluation = score(config, mine)
        if folder is not None:
            evaluation.write(folder)
    evaluation.show(folder)
    return evaluation.result


def score(config: DictConfig, words: list[str]) -> Evaluation:
    """Score the checkpoint that the configuration names.

    Args:
        config: of ``animegen eval``.
        words: overrides that choose other data.
    """
    checkpoint = resolve_checkpoint(config.checkpoint, config.runs)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device.value)
    model = load_model(checkpoint, device, config.weights.value, trust=config.trust)
    if config.input:
        return score_photos(model, checkpoint, config, words)
    # A look has no data; clips of ToonWorld and videos need none.
    bare = "_target_" not in (model.run_info["config"].get("data") or {})
    data = None if config.benchmark and bare and not words else data_of(checkpoint, model, words, config.trust)
    if config.features is None:
        trained = model.run_info["config"]["model"].get("features")
        source = f"The checkpoint '{checkpoint}'"
        features = scoring_features(trained and build_from(trained, "features", source, REMEDY, trust=config.trust))
    else:
        features = build(config.features, "features") or None
    if config.benchmark:
        chosen = chosen_benchmark(plain(config)["benchmark"], model, data, features, config.samples, config.batch_size)
        return evaluate_on(chosen, model)
    assert data is not None
    evaluation = evaluate_model(model, data, features, config.samples, config.batch_size)
    if evaluation is None:
        raise AnimegenError(
            f"{type(model).__name__} cannot be scored on these data, which have neither drawings of their test photos"
            " nor held-out stills; choose data=unpaired/toonworld, or data=unpaired/folders with both folders."
        )
    return evaluation


def score_photos(model: AnimeModule, checkpoint: Path, config: DictConfig, words: list[str]) -> Evaluation:
    """Measure how a model draws the photos of a folder.

    Raises:
        AnimegenError: if the model does not stylize, if other data are chosen as well, or without photos.
    """
    if words or config.benchmark:
        raise AnimegenError("input= names the photos of the evaluation: leave data= and benchmark= out.")
    if not isinstance(model, Stylizer):
        raise AnimegenError(f"The model of '{checkpoint}', {type(model).__name__}, does not stylize: omit input=.")
    benchmark = PhotoBenchmark(user_path("input", config.input), model, config.max_side, config.samples)
    return evaluate_on(benchmark, model)
