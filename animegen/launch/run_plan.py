"""The request for a training run, its validation, and the parts of a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import DictConfig

from animegen.benchmarks.benchmark import Benchmark
from animegen.config.compose import check_complete, plain, run_folder
from animegen.config.looks import looks
from animegen.engine import callbacks
from animegen.engine.checkpoint import pick_device, read_checkpoint
from animegen.engine.runs import RUN_FILES, quoted, read_record, resolve_checkpoint, resumed_state
from animegen.errors import AnimegenError
from animegen.launch.evaluation import SCORE_FILES
from animegen.launch.trainer import check_length
from animegen.outputs import OutputFolder
from animegen.reports.sections import REPORT

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The request for a run.

    Attributes:
        config: the composed configuration.
        folder: of the run.
        choices: the option of each configuration group.
        overrides: of the command line.
    """

    config: DictConfig
    folder: Path
    choices: dict[str, Any]
    overrides: list[str]


@dataclass(frozen=True)
class Plan:
    """A validated request.

    Attributes:
        config: the configuration.
        output: the folder of the run.
        facts: about the run, for checkpoints and ``run.json``: ``config``, ``choices``, ``overrides``.
        checkpoint: the checkpoint to resume, if any.
        in_place: the checkpoint lies in the folder of the run.
        only_score: the run is trained, but not evaluated.
        resumed: what the checkpoint tells of its run, see :func:`~animegen.engine.runs.resumed_state`.
    """

    config: DictConfig
    output: OutputFolder
    facts: dict[str, Any]
    checkpoint: Path | None
    in_place: bool
    only_score: bool
    resumed: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.output.path

    @property
    def step(self) -> int:
        """The train step of the checkpoint, else 0."""
        return self.resumed.get("train_step", 0)

    def writes(self) -> list[str]:
        """Return the patterns of the files that a run writes, without those of its parts."""
        files = [*RUN_FILES]
        if self.config.evaluate:
            files += SCORE_FILES
        return [*files, REPORT] if self.config.report else files


@dataclass
class Parts:
    """The parts of a run.

    Attributes:
        trainer: the trainer.
        model: the model.
        data: the data module.
        record: the callback that writes ``run.json``.
        benchmark: the benchmark that the configuration names, if any.
        files: path -> size of the training files.
    """

    trainer: pl.Trainer
    model: Any
    data: Any
    record: callbacks.RunRecord
    benchmark: Benchmark | None
    files: Mapping[str, int]

    @property
    def callbacks(self) -> list[pl.Callback]:
        """The callbacks in calling order; more may be inserted."""
        return self.trainer.callbacks  # type: ignore[attr-defined]

    def writes(self) -> list[str]:
        """Return the patterns of the files that the parts write into the run folder."""
        parts = [*self.callbacks, *self.trainer.loggers, self.model]
        files = [pattern for part in parts for pattern in getattr(part, "writes", ())]
        profile = getattr(getattr(self.trainer, "profiler", None), "filename", None)
        return [*files, f"fit-{profile}*"] if profile else files


def validate(request: Request) -> Plan:
    """Validate a request; nothing is written.

    Raises:
        AnimegenError: for a mistake in the request.
    """
    config, folder, overrides = request.config, request.folder, request.overrides
    check_complete(config)
    for key in ("train_steps", "val_every"):
        if config[key] < 1:
            raise AnimegenError(f"{key} must be at least 1, got {config[key]}.")
    check_length(config)
    if "TORCHELASTIC_RUN_ID" in os.environ and not (config.output or config.resume):
        raise AnimegenError(
            "torchrun starts several processes, which need a common folder: set output=<shared folder>."
        )
    pick_device(config.device.value)  # raises for a device that is missing
    if config.init:
        overrides = start_trained(config, overrides)
    pretrained = (config.model or {}).get("pretrain_steps") or 0
    if 2 * pretrained > config.train_steps:
        log.warning(
            "%d of %d train steps are pre-training, in which the generator learns to reproduce photos: raise"
            " train_steps, lower model.pretrain_steps, or start from a trained model with init=",
            *(min(pretrained, config.train_steps), config.train_steps),
        )
    facts: dict[str, Any] = {"config": plain(config), "choices": request.choices, "overrides": overrides}
    checkpoint = Path(config.resume) if config.resume else None
    in_place = checkpoint is not None and run_folder(checkpoint).resolve() == folder.resolve()
    only_score = checkpoint is not None and in_place and only_unscored(checkpoint, facts["config"])
    resumed = resumed_state(checkpoint, facts["config"]) if checkpoint and not only_score else {}
    return Plan(config, OutputFolder(folder), facts, checkpoint, in_place, only_score, resumed)


def start_trained(config: DictConfig, overrides: list[str]) -> list[str]:
    """Prepare the configuration of a run with ``init=``; return its overrides."""
    if config.model and config.model.get("pretrain_steps"):
        config.model.pretrain_steps = 0
        log.info("init=%s is trained: there is no pre-training phase (model.pretrain_steps=0)", config.init)
    if config.resume or (config.init in looks() and not Path(config.init).exists()):
        return overrides
    config.init = str(resolve_checkpoint(config.init, config.runs))  # 'last' will be another run tomorrow
    return [f"init={quoted(config.init)}" if word.startswith("init=") else word for word in overrides]


def only_unscored(checkpoint: Path, config: dict[str, Any]) -> bool:
    """Tell whether a run has trained all its steps, and was stopped before its evaluation finished."""
    last = run_folder(checkpoint) / "checkpoints" / "last.ckpt"
    return (
        read_record(run_folder(checkpoint), newest=True).get("status") != "finished"
        and checkpoint.absolute() == last.absolute()
        and read_checkpoint(checkpoint)["animegen"]["train_step"] == config["train_steps"]
    )
