"""One training run in six steps: validate, build, prepare the folder, fit, evaluate, finish."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from animegen import __version__
from animegen.benchmarks.benchmark import SAMPLES
from animegen.config.compose import plain, run_folder
from animegen.config.instantiate import build
from animegen.data.training_files import check_same_files, pack, same_data, training_files, unpack
from animegen.engine import callbacks
from animegen.engine.checkpoint import load_model, load_pretrained
from animegen.engine.module import AnimeModule
from animegen.engine.runs import (
    read_record,
    unwritable,
)
from animegen.engine.sharded import ShardedStrategy
from animegen.errors import AnimegenError
from animegen.launch.evaluation import SCORE_FILES, Evaluation, chosen_benchmark, evaluate_model, scoring_features
from animegen.launch.next_command import next_command
from animegen.launch.run_folder import check_free, prepare
from animegen.launch.run_plan import Parts, Plan, Request, validate
from animegen.launch.trainer import build_trainer, fit, show_pareto
from animegen.reports.sections import REPORT, write_page

log = logging.getLogger(__name__)

#: Samples per batch of the final evaluation.
BATCH = 8


def train(request: Request) -> None:
    """Run one training.

    Raises:
        AnimegenError: for a mistake in the request, or if the run cannot be completed.
        KeyboardInterrupt: after Ctrl+C or SIGTERM.
    """
    with contextlib.ExitStack() as held, disk_errors(request.folder):
        plan = validate(request)
        parts = build_parts(plan)
        replacement = prepare(plan, parts, held)
        with recorded_failures(plan, parts):
            fit_model(plan, parts)
            replacement.keep()
            evaluation = evaluate(plan, parts)
        finish(plan, parts, evaluation)


# --- Build ---------------------------------------------------------------------------------------------------


def build_parts(plan: Plan) -> Parts:
    """Build trainer, data, model and benchmark; mistakes in the configuration are found before anything is written."""
    config = plan.config
    record = callbacks.RunRecord(plan.folder, plan.facts, resumed=plan.in_place)
    trainer = build_trainer(config, plan.folder, record, plan.step)
    if trainer.is_global_zero:
        plan.output.recover()
        check_free(plan)
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    data = build(config.data, "data", pl.LightningDataModule)
    files = training_files(getattr(data, "train", None))
    check_files(plan, files)
    model: Any = build(config.model, "model", AnimeModule)
    model.objectives.check_features()
    model.run_info = {"version": __version__, **plan.facts, "files": pack(files)}
    if config.init and not plan.checkpoint:
        log.info("%s: weights of %s", ", ".join(load_pretrained(model, config.init)), config.init)
    benchmark = None
    if config.get("benchmark") and config.evaluate:
        with torch.random.fork_rng(devices=[]):  # the random numbers of the training stay the same
            benchmark = chosen_benchmark(plain(config)["benchmark"], model, data, model.features, SAMPLES, BATCH)
    return Parts(trainer, model, data, record, benchmark, files)


def check_files(plan: Plan, files: Mapping[str, int]) -> None:
    """Refuse to resume with other training files than those of the checkpoint, unless other data are configured."""
    then = plan.resumed.get("files")
    if then is not None and same_data(plan.resumed["config"]["data"], plan.facts["config"]["data"]):
        check_same_files(unpack(then), files, str(plan.checkpoint))


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - global state that users' losses and plugins may draw from
    torch.manual_seed(seed)


# --- Fit -----------------------------------------------------------------------------------------------------


def fit_model(plan: Plan, parts: Parts) -> None:
    """Train the model, or load it if it is trained; afterwards it is complete in the first process."""
    trainer = parts.trainer
    if plan.only_score and plan.checkpoint is not None:
        parts.model = trained_model(plan.checkpoint, trainer, parts.record, plan.config.trust)
    else:
        fit(trainer, parts.model, parts.data, plan.checkpoint, plan.facts["overrides"])
        check_end(plan, parts.model.train_step)
    if torch.distributed.is_initialized():
        # The first process evaluates alone; metrics would wait for the others.
        torch.distributed.destroy_process_group()
    if isinstance(trainer.strategy, ShardedStrategy) and trainer.is_global_zero:
        parts.model = load_model(plan.folder / "checkpoints" / "last.ckpt", trainer.strategy.root_device, trust=True)


def check_end(plan: Plan, step: int) -> None:
    """Raise if something other than ``train_steps`` ended the training."""
    if step < plan.config.train_steps:
        raise AnimegenError(
            f"The training ended at train step {step} of {plan.config.train_steps}, stopped by a callback or a"
            f" setting of the trainer (such as max_time). To continue: animegen train resume={plan.folder}"
        )


def trained_model(
    checkpoint: Path, trainer: pl.Trainer, record: callbacks.RunRecord, trust: bool = False
) -> AnimeModule:
    """Return the trained model of a run without scores, after copying the results of its training to the record."""
    model = load_model(checkpoint, trainer.strategy.root_device, trust=trust)
    log.info("already trained to step %d: only the evaluation is left", model.train_step)
    before = read_record(run_folder(checkpoint), newest=True)
    for key in ("metrics", "seconds", "parameters", "features", "calibration", "resumed_at", "started"):
        if key in before:
            record.record[key] = before[key]
    record.record["train_step"] = model.train_step
    return model


# --- Evaluate ------------------------------------------------------------------------------------------------


def evaluate(plan: Plan, parts: Parts) -> Evaluation | None:
    """Score the model in the first process and write the scores, if there is a benchmark for it."""
    trainer, model = parts.trainer, parts.model
    if not plan.config.evaluate or not trainer.is_global_zero:
        return None
    model.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    evaluation = evaluate_model(model, parts.data, scoring_features(model.features), SAMPLES, BATCH, parts.benchmark)
    if evaluation is not None:
        evaluation.write(plan.output)
        show_pareto(trainer, plan.folder, model.train_step)
    return evaluation


# --- Finish --------------------------------------------------------------------------------------------------


def finish(plan: Plan, parts: Parts, evaluation: Evaluation | None) -> None:
    """Mark the run as finished, write its report, and only then print the scores and what to do next."""
    parts.record.finish(parts.trainer, parts.model.train_step, evaluation.result if evaluation else None)
    if not parts.trainer.is_global_zero:
        return
    # Earlier scores and reports belong to another model.
    plan.output.remove([*(() if evaluation else SCORE_FILES), REPORT])
    if plan.config.report:
        write_page(plan.folder)
    if evaluation is not None:
        evaluation.show(plan.output)
    if (plan.folder / REPORT).is_file():
        print(f"report: {plan.folder / REPORT}")
    if command := next_command(parts.model, plan.folder, plan.facts["config"].get("data") or {}):
        print(f"next: {command}")


# --- Failures ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk into a sentence, whatever is written."""
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
        parts.record.fail(trainer, error)
        resumable = trainer.is_global_zero and (plan.folder / "checkpoints" / "last.ckpt").exists()
        if isinstance(error, KeyboardInterrupt) and resumable:
            step = parts.model.train_step
            log.info("stopped in train step %d; to continue: animegen train resume=%s", step, plan.folder)
        raise
