"""``animegen train``: compose, build, fit, evaluate; returns the metric to optimise."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from animegen import __version__, callbacks
from animegen.cli import run
from animegen.core.checkpoint import read_checkpoint
from animegen.core.config import build, check_complete, compose_config, explain, plain, register
from animegen.core.errors import AnimegenError
from animegen.core.runs import resumed_overrides
from animegen.evaluate import evaluate_model

log = logging.getLogger(__name__)


def train(config: DictConfig, folder: Path, choices: dict[str, Any], overrides: list[str]) -> float | None:
    """Run one training; return the value of the metric that the experiment optimises."""
    quieten()
    check_complete(config)
    if config.train_steps < 1:
        raise AnimegenError(f"train_steps must be at least 1, got {config.train_steps}.")
    checkpoint = Path(config.resume) if config.resume else None
    if checkpoint is None:
        prepare_folder(folder, config.overwrite)
    else:
        read_checkpoint(checkpoint)  # a damaged file is told now, not after the data were prepared
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)

    facts: dict[str, Any] = {"config": plain(config), "choices": choices, "overrides": overrides}
    data = build(config.data, "data")
    model = build(config.model, "model")
    model.run_info = {"version": __version__, **facts}
    record = callbacks.RunRecord(folder, facts)
    extra = {name: build(node, f"callbacks.{name}") for name, node in (config.callbacks or {}).items() if node}
    loggers = [
        build({**node, "save_dir": str(folder)}, f"logger.{name}")
        for name, node in (config.logger or {}).items()
        if node
    ]
    if isinstance(progress := extra.get("progress"), callbacks.Progress):
        progress.train_steps = config.train_steps
    # Checkpoints come last, so that they hold what every other callback did at that step.
    ordered = sorted(extra.values(), key=lambda callback: isinstance(callback, callbacks.Checkpoints))
    trainer: pl.Trainer = build({**facts["config"]["trainer"], "default_root_dir": str(folder)}, "trainer")
    trainer.callbacks.extend([callbacks.ExactResume(), record, callbacks.StopAfter(config.train_steps), *ordered])
    trainer.loggers = loggers
    for logger in loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.add_text("config", f"```yaml\n{hydra_yaml(config)}\n```", 0)

    if trainer.is_global_zero:
        log.info("run folder: %s", folder)
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except BaseException as error:
        record.on_exception(trainer, model, error)
        raise
    if trainer.interrupted:
        record.finish(trainer, model, None)
        raise KeyboardInterrupt
    result = None
    if config.evaluate and trainer.is_global_zero:
        result = evaluate_model(model, data, folder, overwrite=True)
    record.finish(trainer, model, result)
    return optimised(record.record)


def optimised(record: dict[str, Any]) -> float | None:
    """Return the value that a sweeper optimises: the task's main metric, else the first validation metric."""
    evaluation = record.get("evaluation")
    if evaluation:
        return evaluation["methods"]["model"][evaluation["main"]]["mean"]
    return next((value for name, value in record["metrics"].items() if name.startswith("val/")), None)


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Create the run folder; never train over a finished run."""
    first_process = os.environ.get("LOCAL_RANK", "0") == "0"
    if (folder / "run.json").exists() and first_process and not overwrite:
        raise AnimegenError(
            f"'{folder}' already holds a run: choose another output=, resume={folder}, or overwrite=true."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config").mkdir(exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise AnimegenError(
            f"The run folder '{folder}' cannot be written ({error.strerror}): choose another output= or runs=."
        ) from error


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def hydra_yaml(config: DictConfig) -> str:
    """Return the resolved configuration as YAML."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(config, resolve=True)


def quieten() -> None:
    """Keep tips and notices of libraries that say nothing about this run off the terminal."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@hydra.main(version_base="1.3", config_path="pkg://animegen.conf", config_name="train")
def job(config: DictConfig) -> float | None:
    """One job of a run or of a sweep."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    choices = {name: choice for name, choice in hydra_config.runtime.choices.items() if not name.startswith("hydra/")}
    try:
        return train(config, folder, choices, list(hydra_config.overrides.task))
    except Exception as error:
        if hydra_config.mode == RunMode.MULTIRUN:
            raise
        # Hydra would print a report of its own; what is no Exception it lets pass.
        raise _Failed(error) from error


class _Failed(BaseException):
    """Carries an error of a single run past Hydra."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen train`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        register()
        options = [w for w in words if w.startswith("-")]
        overrides = [w for w in words if not w.startswith("-")]
        if not options:
            overrides = resumed_overrides(overrides)
            compose_config("train", overrides)  # tells mistakes in our words before Hydra does in its own
        # Hydra then hands us exceptions as they are.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        sys.argv = [sys.argv[0], *options, *overrides]
        try:
            job()
        except _Failed as failed:
            raise failed.error from failed.error.__cause__
        except (HydraException, OmegaConfBaseException) as error:
            raise AnimegenError(explain(error, "train", overrides)) from error

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
