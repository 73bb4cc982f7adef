"""One training run in six steps: validate, build, prepare the folder, fit, evaluate, finish."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from animegen import __version__
from animegen.benchmarks.benchmark import Benchmark
from animegen.config.ablations import check_ablations
from animegen.config.compose import check_complete, plain, run_folder
from animegen.config.instantiate import build
from animegen.engine import callbacks
from animegen.engine.checkpoint import begin_with, load_model, pick_device, read_checkpoint
from animegen.engine.module import AnimeModule
from animegen.engine.runs import (
    check_folder,
    prepare_folder,
    quoted,
    read_record,
    resolve_checkpoint,
    resumed_step,
    unwritable,
)
from animegen.engine.sharded import ShardedStrategy
from animegen.errors import AnimegenError
from animegen.launch.evaluation import chosen_benchmark, evaluate_model
from animegen.launch.trainer import build_trainer, fit, show_config, show_pareto
from animegen.locks import locked
from animegen.nn.features import FeatureExtractor
from animegen.reports.sections import write_page

log = logging.getLogger(__name__)

#: Samples per batch of the final evaluation.
BATCH = 8


@dataclass(frozen=True)
class Request:
    """A run as it is asked for.

    Attributes:
        config: the composed configuration.
        folder: of the run.
        choices: the option of each configuration group.
        overrides: words of the command line.
    """

    config: DictConfig
    folder: Path
    choices: dict[str, Any]
    overrides: list[str]


@dataclass(frozen=True)
class Plan:
    """A request that was checked.

    Attributes:
        config: the configuration.
        folder: of the run.
        facts: what checkpoints and ``run.json`` say about the run: ``config``, ``choices``, ``overrides``.
        checkpoint: the checkpoint to resume, if any.
        in_place: the checkpoint lies in the folder of the run.
        only_score: the run is trained, and only its evaluation is missing.
        step: the train step of the checkpoint, else 0.
    """

    config: DictConfig
    folder: Path
    facts: dict[str, Any]
    checkpoint: Path | None
    in_place: bool
    only_score: bool
    step: int


@dataclass
class Parts:
    """What a run is built of."""

    trainer: pl.Trainer
    model: Any
    data: Any
    record: callbacks.RunRecord
    benchmark: Benchmark | None


def train(request: Request) -> None:
    """Run one training.

    Raises:
        AnimegenError: for a mistake in the request, or if the run cannot go to its end.
        KeyboardInterrupt: after Ctrl+C or SIGTERM.
    """
    with contextlib.ExitStack() as held, disk_errors(request.folder):
        plan = validate(request)
        parts = build_parts(plan)
        prepare(plan, parts, held)
        with recorded_failures(plan, parts):
            fit_model(plan, parts)
            result = evaluate(plan, parts)
        finish(plan, parts, result)


# --- 1. Validate ------------------------------------------------------------------------------------------------


def validate(request: Request) -> Plan:
    """Check a request; nothing is written."""
    config, folder, overrides = request.config, request.folder, request.overrides
    check_complete(config)
    check_ablations(overrides)
    for key in ("train_steps", "val_every"):
        if config[key] < 1:
            raise AnimegenError(f"{key} must be at least 1, got {config[key]}.")
    if "TORCHELASTIC_RUN_ID" in os.environ and not (config.output or config.resume):
        raise AnimegenError("torchrun starts several processes, which need one folder: set output=<shared folder>.")
    pick_device(config.device.value)  # raises for a device that is missing
    if config.init and not config.resume:  # 'last' will be another run tomorrow
        config.init = str(resolve_checkpoint(config.init, config.runs))
        overrides = [f"init={quoted(config.init)}" if word.startswith("init=") else word for word in overrides]
    facts: dict[str, Any] = {"config": plain(config), "choices": request.choices, "overrides": overrides}
    checkpoint = Path(config.resume) if config.resume else None
    in_place = checkpoint is not None and run_folder(checkpoint).resolve() == folder.resolve()
    only_score = checkpoint is not None and in_place and only_unscored(checkpoint, facts["config"])
    step = resumed_step(checkpoint, facts["config"]) if checkpoint and not only_score else 0
    return Plan(config, folder, facts, checkpoint, in_place, only_score, step)


def only_unscored(checkpoint: Path, config: dict[str, Any]) -> bool:
    """Tell whether a run has trained all its steps, and was stopped before it was evaluated and marked as finished."""
    last = run_folder(checkpoint) / "checkpoints" / "last.ckpt"
    return (
        read_record(run_folder(checkpoint)).get("status") != "finished"
        and checkpoint.absolute() == last.absolute()
        and read_checkpoint(checkpoint)["animegen"]["train_step"] == config["train_steps"]
    )


# --- 2. Build ---------------------------------------------------------------------------------------------------


def build_parts(plan: Plan) -> Parts:
    """Build trainer, data, model and benchmark: a mistake in the configuration shows before anything is written."""
    config = plan.config
    record = callbacks.RunRecord(plan.folder, plan.facts)
    trainer = build_trainer(config, plan.folder, record, plan.step)
    if trainer.is_global_zero:
        check_folder(plan.folder, plan.in_place or config.overwrite)
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    data = build(config.data, "data")
    model: Any = build(config.model, "model")
    model.run_info = {"version": __version__, **plan.facts}
    if config.init and not plan.checkpoint:
        log.info("%s: weights of %s", ", ".join(begin_with(model, config.init)), config.init)
    benchmark = None
    if config.get("benchmark") and config.evaluate:
        with torch.random.fork_rng(devices=[]):  # what is drawn in training stays the same
            benchmark = chosen_benchmark(plain(config)["benchmark"], model, data, model.features, None, BATCH)
    return Parts(trainer, model, data, record, benchmark)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - global state that users' losses and plugins may draw from
    torch.manual_seed(seed)


# --- 3. Prepare the folder --------------------------------------------------------------------------------------


def prepare(plan: Plan, parts: Parts, held: contextlib.ExitStack) -> None:
    """Lock the folder of the run and write the configuration into it."""
    if not parts.trainer.is_global_zero:
        return
    config = plan.config
    held.enter_context(locked(plan.folder, tidy=True))
    check_folder(plan.folder, plan.in_place or config.overwrite)  # another command may have been faster
    if not plan.only_score:
        overrides = OmegaConf.to_yaml(plan.facts["overrides"])
        texts = {"config.yaml": OmegaConf.to_yaml(config), "overrides.yaml": overrides}
        prepare_folder(plan.folder, texts, plan.in_place)
        show_config(parts.trainer, config, plan.step)
    log.info("run folder: %s", plan.folder)


# --- 4. Fit -----------------------------------------------------------------------------------------------------


def fit_model(plan: Plan, parts: Parts) -> None:
    """Train the model, or load it if it is trained; afterwards it is complete in the first process."""
    trainer = parts.trainer
    if plan.only_score and plan.checkpoint is not None:
        parts.model = trained_model(plan.checkpoint, trainer, parts.record)
    else:
        fit(trainer, parts.model, parts.data, plan.checkpoint)
    if torch.distributed.is_initialized():
        # The first process evaluates alone; metrics would wait for the others.
        torch.distributed.destroy_process_group()
    if isinstance(trainer.strategy, ShardedStrategy) and trainer.is_global_zero:
        parts.model = load_model(plan.folder / "checkpoints" / "last.ckpt", trainer.strategy.root_device)


def trained_model(checkpoint: Path, trainer: pl.Trainer, record: callbacks.RunRecord) -> AnimeModule:
    """Return the model of a run that only lacks its scores, after copying the facts of its training to the record."""
    model = load_model(checkpoint, trainer.strategy.root_device)
    log.info("trained already, step %d: only the evaluation is left", model.train_step)
    before = read_record(run_folder(checkpoint))
    for key in ("metrics", "seconds", "parameters", "features", "calibration", "resumed_at", "started"):
        if key in before:
            record.record[key] = before[key]
    record.record["train_step"] = model.train_step
    return model


# --- 5. Evaluate ------------------------------------------------------------------------------------------------


def evaluate(plan: Plan, parts: Parts) -> dict[str, Any] | None:
    """Score the model in the first process; return what ``scores.json`` holds, if there is a benchmark for it."""
    trainer, model = parts.trainer, parts.model
    if not plan.config.evaluate or not trainer.is_global_zero:
        return None
    model.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    # A stand-in for LPIPS that needs no download; the metric's name says that it is random.
    features = model.features or FeatureExtractor("squeezenet1_1", "random")
    result = evaluate_model(model, parts.data, plan.folder, features, None, BATCH, parts.benchmark)
    show_pareto(trainer, plan.folder, model.train_step)
    return result


# --- 6. Finish --------------------------------------------------------------------------------------------------


def finish(plan: Plan, parts: Parts, result: dict[str, Any] | None) -> None:
    """Mark the run as finished and write its report."""
    parts.record.finish(parts.trainer, parts.model, result)
    if plan.config.report and parts.trainer.is_global_zero:
        write_page(plan.folder)


# --- Failures ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full or read-only into a sentence, whatever was being written."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise unwritable(folder, error) from error
        raise


@contextlib.contextmanager
def recorded_failures(plan: Plan, parts: Parts) -> Iterator[None]:
    """Record in ``run.json`` how the run failed, and end the processes that it started."""
    trainer = parts.trainer
    try:
        yield
    except BaseException as error:
        if trainer.world_size > 1 and trainer.strategy.launcher is not None:
            # The processes that this one started would wait for it.
            trainer.strategy.launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        parts.record.on_exception(trainer, parts.model, error)
        resumable = trainer.is_global_zero and (plan.folder / "checkpoints" / "last.ckpt").exists()
        if isinstance(error, KeyboardInterrupt) and resumable:
            step = parts.model.train_step
            log.info("stopped in train step %d; to continue: animegen train resume=%s", step, plan.folder)
        raise
