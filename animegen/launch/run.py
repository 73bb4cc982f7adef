"""One training run in six steps: validate, build, prepare the folder, fit, evaluate, finish."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from animegen import __version__
from animegen.benchmarks.benchmark import Benchmark
from animegen.config.compose import check_complete, plain, run_folder
from animegen.config.instantiate import build
from animegen.engine import callbacks
from animegen.engine.checkpoint import load_model, load_pretrained, pick_device, read_checkpoint
from animegen.engine.module import AnimeModule
from animegen.engine.runs import (
    LAST,
    RUN_FILES,
    is_run,
    quoted,
    read_record,
    resolve_checkpoint,
    resumed_step,
    unwritable,
)
from animegen.engine.sharded import ShardedStrategy
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.launch.evaluation import SCORE_FILES, Evaluation, chosen_benchmark, evaluate_model
from animegen.launch.trainer import build_trainer, check_length, fit, show_config, show_pareto
from animegen.nn.features import FeatureExtractor
from animegen.outputs import STATE, OutputFolder, Replacement
from animegen.reports.sections import REPORT, write_page

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
        output: the folder of the run.
        facts: what checkpoints and ``run.json`` say about the run: ``config``, ``choices``, ``overrides``.
        checkpoint: the checkpoint to resume, if any.
        in_place: the checkpoint lies in the folder of the run.
        only_score: the run is trained, and only its evaluation is missing.
        step: the train step of the checkpoint, else 0.
    """

    config: DictConfig
    output: OutputFolder
    facts: dict[str, Any]
    checkpoint: Path | None
    in_place: bool
    only_score: bool
    step: int

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.output.path

    def files(self) -> list[str]:
        """Return the patterns of the files that the commands of a run write, without those of its parts."""
        files = [*RUN_FILES]
        if self.config.evaluate:
            files += SCORE_FILES
        return [*files, REPORT] if self.config.report else files


@dataclass
class Parts:
    """What a run is built of."""

    trainer: pl.Trainer
    model: Any
    data: Any
    record: callbacks.RunRecord
    benchmark: Benchmark | None

    @property
    def callbacks(self) -> list[pl.Callback]:
        """The callbacks in the order in which they are called; more may be inserted."""
        return self.trainer.callbacks  # type: ignore[attr-defined]

    def files(self) -> list[str]:
        """Return the patterns of the files that the parts write into the run folder."""
        parts = [*self.callbacks, *self.trainer.loggers, self.model]
        files = [pattern for part in parts for pattern in getattr(part, "writes", ())]
        profile = getattr(getattr(self.trainer, "profiler", None), "filename", None)
        return [*files, f"fit-{profile}*"] if profile else files


def train(request: Request) -> None:
    """Run one training.

    Raises:
        AnimegenError: for a mistake in the request, or if the run cannot go to its end.
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


# --- 1. Validate ------------------------------------------------------------------------------------------------


def validate(request: Request) -> Plan:
    """Check a request; nothing is written."""
    config, folder, overrides = request.config, request.folder, request.overrides
    check_complete(config)
    for key in ("train_steps", "val_every"):
        if config[key] < 1:
            raise AnimegenError(f"{key} must be at least 1, got {config[key]}.")
    check_length(config)
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
    return Plan(config, OutputFolder(folder), facts, checkpoint, in_place, only_score, step)


def only_unscored(checkpoint: Path, config: dict[str, Any]) -> bool:
    """Tell whether a run has trained all its steps, and was stopped before it was evaluated and marked as finished."""
    last = run_folder(checkpoint) / "checkpoints" / "last.ckpt"
    return (
        read_record(run_folder(checkpoint), newest=True).get("status") != "finished"
        and checkpoint.absolute() == last.absolute()
        and read_checkpoint(checkpoint)["animegen"]["train_step"] == config["train_steps"]
    )


# --- 2. Build ---------------------------------------------------------------------------------------------------


def build_parts(plan: Plan) -> Parts:
    """Build trainer, data, model and benchmark: a mistake in the configuration shows before anything is written."""
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
    model: Any = build(config.model, "model", AnimeModule)
    model.run_info = {"version": __version__, **plan.facts}
    if config.init and not plan.checkpoint:
        log.info("%s: weights of %s", ", ".join(load_pretrained(model, config.init)), config.init)
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


def check_free(plan: Plan) -> None:
    """Refuse a folder that holds a run, unless it is resumed or replaced."""
    if not plan.in_place and not plan.config.overwrite and is_run(plan.folder):
        raise AnimegenError(
            f"'{plan.folder}' already holds a run: choose another output=, resume={plan.folder}, or overwrite=true."
        )


def prepare(plan: Plan, parts: Parts, held: contextlib.ExitStack) -> Replacement:
    """Hold the folder of the run until its end, and set aside what it replaces.

    An old run returns if the new one fails before its first checkpoint. In a resumed run nothing changes before its
    first step is trained: until then it may be refused.
    """
    if not parts.trainer.is_global_zero:
        return Replacement.none()
    output = plan.output
    held.enter_context(output.held())
    check_free(plan)  # another command may have been faster
    files = [*plan.files(), *parts.files()]
    if plan.in_place and not (plan.folder / STATE).exists():
        output.claim(files, check=False)  # a run whose hidden file was lost, such as a copy
    log.info("run folder: %s", plan.folder)
    if not plan.in_place and not is_run(plan.folder):
        output.remove()  # what an attempt without a checkpoint has left
        output.claim(files)
        begin(plan, parts)
        return Replacement.none()
    replacement = held.enter_context(output.replacing(files, old=() if plan.in_place else None, until=LAST))

    def begin_resumed() -> None:
        replacement.keep()
        parts.record.begin()
        begin(plan, parts)

    if plan.in_place and not plan.only_score:
        parts.callbacks.insert(1, Once(lambda: True, begin_resumed))
    elif not plan.in_place:
        begin(plan, parts)
        parts.callbacks.insert(1, Once(lambda: (plan.folder / LAST).exists(), replacement.keep))
    return replacement


class Once(pl.Callback):
    """Act once, after the first train step at which a condition holds."""

    def __init__(self, condition: Callable[[], bool], act: Callable[[], None]) -> None:
        self._condition, self._act = condition, act
        self._done = False

    def on_train_batch_end(self, *_: Any) -> None:
        """Act if it is time."""
        if not self._done and self._condition():
            self._done = True
            self._act()


def begin(plan: Plan, parts: Parts) -> None:
    """Write the configuration and the overrides into the run folder and to TensorBoard."""
    texts = {
        "config.yaml": OmegaConf.to_yaml(plan.config),
        "overrides.yaml": OmegaConf.to_yaml(plan.facts["overrides"]),
    }
    for name, text in texts.items():
        with completed(plan.folder / "config" / name) as hidden:
            hidden.write_text(text, "utf-8")
    show_config(parts.trainer, plan.config, plan.step)


# --- 4. Fit -----------------------------------------------------------------------------------------------------


def fit_model(plan: Plan, parts: Parts) -> None:
    """Train the model, or load it if it is trained; afterwards it is complete in the first process."""
    trainer = parts.trainer
    if plan.only_score and plan.checkpoint is not None:
        parts.model = trained_model(plan.checkpoint, trainer, parts.record, plan.config.trust)
    else:
        fit(trainer, parts.model, parts.data, plan.checkpoint)
        check_end(plan, parts.model.train_step)
    if torch.distributed.is_initialized():
        # The first process evaluates alone; metrics would wait for the others.
        torch.distributed.destroy_process_group()
    if isinstance(trainer.strategy, ShardedStrategy) and trainer.is_global_zero:
        parts.model = load_model(plan.folder / "checkpoints" / "last.ckpt", trainer.strategy.root_device, trust=True)


def check_end(plan: Plan, step: int) -> None:
    """Refuse to take a run for a finished one that something else than ``train_steps`` has ended."""
    if step < plan.config.train_steps:
        raise AnimegenError(
            f"The training ended at train step {step} of {plan.config.train_steps}: a callback or a setting of the"
            f" trainer (such as max_time) has stopped it. To continue: animegen train resume={plan.folder}"
        )


def trained_model(
    checkpoint: Path, trainer: pl.Trainer, record: callbacks.RunRecord, trust: bool = False
) -> AnimeModule:
    """Return the model of a run that only lacks its scores, after copying the facts of its training to the record."""
    model = load_model(checkpoint, trainer.strategy.root_device, trust=trust)
    log.info("trained already, step %d: only the evaluation is left", model.train_step)
    before = read_record(run_folder(checkpoint), newest=True)
    for key in ("metrics", "seconds", "parameters", "features", "calibration", "resumed_at", "started"):
        if key in before:
            record.record[key] = before[key]
    record.record["train_step"] = model.train_step
    return model


# --- 5. Evaluate ------------------------------------------------------------------------------------------------


def evaluate(plan: Plan, parts: Parts) -> Evaluation | None:
    """Score the model in the first process and write the scores, if there is a benchmark for it."""
    trainer, model = parts.trainer, parts.model
    if not plan.config.evaluate or not trainer.is_global_zero:
        return None
    model.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
    # A stand-in for LPIPS that needs no download; the metric's name says that it is random.
    features = model.features or FeatureExtractor("squeezenet1_1", "random")
    evaluation = evaluate_model(model, parts.data, features, None, BATCH, parts.benchmark)
    if evaluation is not None:
        evaluation.write(plan.output)
        show_pareto(trainer, plan.folder, model.train_step)
    return evaluation


# --- 6. Finish --------------------------------------------------------------------------------------------------


def finish(plan: Plan, parts: Parts, evaluation: Evaluation | None) -> None:
    """Mark the run as finished, write its report, and only then print the scores."""
    parts.record.finish(parts.trainer, parts.model, evaluation.result if evaluation else None)
    if not parts.trainer.is_global_zero:
        return
    # Scores and report of an earlier end are those of another model.
    plan.output.remove([*(() if evaluation else SCORE_FILES), REPORT])
    if plan.config.report:
        write_page(plan.folder)
    if evaluation is not None:
        evaluation.show(plan.output)


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
