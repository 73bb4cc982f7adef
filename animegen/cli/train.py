"""``animegen train``: compose, build, fit, evaluate; returns the metric to optimise."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from animegen import __version__
from animegen.cli.evaluate import chosen_benchmark, evaluate_model
from animegen.cli.main import quieten, run
from animegen.config.ablations import check_ablations
from animegen.config.compose import check_complete, compose_config, explain, list_options, plain, register, run_folder
from animegen.config.instantiate import build, finish
from animegen.engine import callbacks
from animegen.engine.checkpoint import begin_with, load_model, pick_device, read_checkpoint
from animegen.engine.module import AnimeModule
from animegen.engine.runs import (
    check_folder,
    prepare_folder,
    quoted,
    read_record,
    resolve_checkpoint,
    resumed_overrides,
    resumed_step,
    unwritable,
)
from animegen.engine.sharded import ShardedStrategy
from animegen.errors import AnimegenError
from animegen.launch.rerun import plan_rerun
from animegen.launch.study import run_study
from animegen.launch.sweep import is_sweep, optimised, run_sweep
from animegen.locks import locked
from animegen.media.images import read_image
from animegen.nn.features import FeatureExtractor
from animegen.reports.pareto import PARETO
from animegen.reports.sections import write_page

log = logging.getLogger("animegen.cli.train")  # also when this file is run as __main__

HELP = """animegen train [key=value ...]

  animegen train experiment=animegan/quickstart
  animegen train experiment=toy/quickstart size=tiny train_steps=200 output=runs/try
  animegen train resume=last                            go on with the newest run, exactly where it stopped
  animegen train resume=runs/try train_steps=500        train on
  animegen train init=runs/try train_steps=500          begin anew, but with its weights: other data, losses or rates
  animegen train model.optimizers.generator.lr=1e-4     change any value; ~key removes one, +key=value adds one
  animegen train rerun=runs/try                         the same run again, from its run.json
  animegen train -m model=animegan/v1,animegan/v2 seed=0,1,2      one run for each combination
  animegen train resume_sweep=runs/sweep/<time>         what is missing of these
  animegen train study=toy jobs=2                       a grid of runs from a file, see animegen train study=toy --help
  animegen train experiment=animegan/quickstart --cfg job         print the configuration and do nothing

keys: seed, train_steps, val_every, device=auto|cpu|cuda|mps, threads, evaluate, report, output=<folder>, runs,
      overwrite, resume=last|<run folder>|<.ckpt file>, init=likewise, rerun=<run folder>, resume_sweep=<folder>, and
      these groups (what each option is: animegen list):
"""

#: Samples per batch of the final evaluation.
BATCH = 8

#: Of TensorBoard's CUSTOM SCALARS: the same few charts for every model; the tags are patterns.
LAYOUT = {
    "validation": {
        "likeness": ["Multiline", [r"val/(psnr|ssim|edge_f)$"]],
        "all of validation": ["Multiline", [r"^val/.*"]],
    },
    "training": {
        "objectives": ["Multiline", [r"^train/[^/]+/total$"]],
        "terms": ["Multiline", [r"^train/[^/]+/(?!total$|grad_norm$)[^/]+$"]],
        "gradients": ["Multiline", [r"^train/[^/]+/grad_norm$"]],
        "learning rates": ["Multiline", [r"^opt/lr/.*"]],
    },
}


def train(config: DictConfig, folder: Path, choices: dict[str, Any], overrides: list[str]) -> float | None:
    """Run one training; return the value of the metric that the experiment optimises."""
    try:
        with contextlib.ExitStack() as held:
            return _train(config, folder, choices, overrides, held)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):  # whatever was being written
            raise unwritable(folder, error) from error
        raise


def _train(
    config: DictConfig, folder: Path, choices: dict[str, Any], overrides: list[str], held: contextlib.ExitStack
) -> float | None:
    quieten()
    check_complete(config)
    check_ablations(overrides)
    for key in ("train_steps", "val_every"):
        if config[key] < 1:
            raise AnimegenError(f"{key} must be at least 1, got {config[key]}.")
    if "TORCHELASTIC_RUN_ID" in os.environ and not (config.output or config.resume):
        raise AnimegenError("torchrun starts many processes, which need one folder: name it, output=<shared folder>.")
    pick_device(config.device.value)  # one that is not there is told now, with the remedy
    if config.init and not config.resume:  # 'last' is another run tomorrow
        config.init = str(resolve_checkpoint(config.init, config.runs))
        overrides = [f"init={quoted(config.init)}" if word.startswith("init=") else word for word in overrides]
    facts: dict[str, Any] = {"config": plain(config), "choices": choices, "overrides": overrides}
    checkpoint = Path(config.resume) if config.resume else None
    goes_on = checkpoint is not None and run_folder(checkpoint).resolve() == folder.resolve()
    only_score = checkpoint is not None and goes_on and only_unscored(checkpoint, facts["config"])
    step = resumed_step(checkpoint, facts["config"]) if checkpoint and not only_score else 0
    record = callbacks.RunRecord(folder, facts)
    trainer = build_trainer(config, folder, record, step)
    if trainer.is_global_zero:
        check_folder(folder, goes_on or config.overwrite)
    if config.threads:
        torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    data = build(config.data, "data")
    model: Any = build(config.model, "model")
    model.run_info = {"version": __version__, **facts}
    if config.init and not checkpoint:
        log.info("%s: weights of %s", ", ".join(begin_with(model, config.init)), config.init)
    if trainer.is_global_zero:
        # Not before everything is built: a mistake must not cost the run that is to be replaced.
        held.enter_context(locked(folder, tidy=True))
        check_folder(folder, goes_on or config.overwrite)  # another command may have been faster
        texts = {"config.yaml": OmegaConf.to_yaml(config), "overrides.yaml": OmegaConf.to_yaml(overrides)}
        if not only_score:
            prepare_folder(folder, texts, goes_on)
            show_config(trainer, config, step)
        log.info("run folder: %s", folder)
    result = benchmark = None
    if config.get("benchmark") and config.evaluate:
        with torch.random.fork_rng(devices=[]):  # a mistake is told now; what is drawn in training stays the same
            benchmark = chosen_benchmark(plain(config)["benchmark"], model, data, model.features, None, BATCH)
    try:
        if only_score and checkpoint is not None:
            model = trained_model(checkpoint, trainer, record)
        else:
            fit(trainer, model, data, checkpoint)
        if torch.distributed.is_initialized():
            # The first process evaluates alone; metrics would wait for the others.
            torch.distributed.destroy_process_group()
        if isinstance(trainer.strategy, ShardedStrategy) and trainer.is_global_zero:
            model = load_model(folder / "checkpoints" / "last.ckpt", trainer.strategy.root_device)  # whole again
        if config.evaluate and trainer.is_global_zero:
            model.to(trainer.strategy.root_device)  # Lightning leaves it on the CPU
            # A stand-in for LPIPS that needs no download; the metric's name says that it is random.
            features = model.features or FeatureExtractor("squeezenet1_1", "random")
            result = evaluate_model(model, data, folder, features, None, BATCH, benchmark)
            show_pareto(trainer, folder, model.train_step)
    except BaseException as error:
        if trainer.world_size > 1 and trainer.strategy.launcher is not None:
            # The processes that this one started would wait for it.
            trainer.strategy.launcher.kill(getattr(signal, "SIGKILL", signal.SIGTERM))
        record.on_exception(trainer, model, error)
        resumable = trainer.is_global_zero and (folder / "checkpoints" / "last.ckpt").exists()
        if isinstance(error, KeyboardInterrupt) and resumable:
            log.info("stopped in train step %d; to go on: animegen train resume=%s", model.train_step, folder)
        raise
    record.finish(trainer, model, result)
    if config.report and trainer.is_global_zero:
        write_page(folder)
    return optimised(record.record)


def only_unscored(checkpoint: Path, config: dict[str, Any]) -> bool:
    """Tell whether a run has trained all its steps, and was stopped before it was evaluated and marked as finished."""
    last = run_folder(checkpoint) / "checkpoints" / "last.ckpt"
    return (
        read_record(run_folder(checkpoint)).get("status") != "finished"
        and checkpoint.absolute() == last.absolute()
        and read_checkpoint(checkpoint)["animegen"]["train_step"] == config["train_steps"]
    )


def trained_model(checkpoint: Path, trainer: pl.Trainer, record: callbacks.RunRecord) -> AnimeModule:
    """Return the model of a run that only lacks its scores; the record takes over what is known of the training."""
    model = load_model(checkpoint, trainer.strategy.root_device)
    log.info("trained already, step %d: only the evaluation is left", model.train_step)
    before = read_record(run_folder(checkpoint))
    for key in ("metrics", "seconds", "parameters", "features", "calibration", "resumed_at", "started"):
        if key in before:
            record.record[key] = before[key]
    record.record["train_step"] = model.train_step
    return model


def build_trainer(config: DictConfig, folder: Path, record: callbacks.RunRecord, step: int) -> pl.Trainer:
    """Return the trainer with its callbacks and loggers; ``step`` is where a resumed run goes on, else 0."""
    chosen = {name: build(node, f"callbacks.{name}") for name, node in (config.callbacks or {}).items() if node}
    checkpoints = [callback for callback in chosen.values() if isinstance(callback, callbacks.Checkpoints)]
    others = [callback for callback in chosen.values() if callback not in checkpoints]
    # Checkpoints come last, so that they hold what every other callback did at that step.
    ordered = [callbacks.ExactResume(), record, callbacks.StopAfter(config.train_steps), *others, *checkpoints]
    ordered.append(callbacks.StopOnSignal(checkpoints))
    loggers = []
    for name, node in (config.logger or {}).items():
        if node:
            loggers.append(build({**node, "save_dir": str(folder)}, f"logger.{name}"))
            if step and isinstance(loggers[-1], callbacks.Resumable):
                loggers[-1].resume_at(step)
    make = build({**plain(config)["trainer"], "_partial_": True}, "trainer")
    trainer: pl.Trainer = finish(
        make, "trainer", callbacks=ordered, logger=loggers or False, default_root_dir=str(folder)
    )
    return trainer


def show_config(trainer: pl.Trainer, config: DictConfig, step: int) -> None:
    """Put the configuration under TensorBoard's TEXT tab."""
    for logger in trainer.loggers:
        if isinstance(logger, pl.loggers.TensorBoardLogger):
            logger.experiment.add_custom_scalars(LAYOUT)
            logger.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}\n```", step)


def show_pareto(trainer: pl.Trainer, folder: Path, step: int) -> None:
    """Put the plot of an evaluation on clips under TensorBoard's IMAGES tab, if there is one."""
    if (folder / PARETO).is_file():
        pixels = read_image(folder / PARETO)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.experiment.add_image("eval/pareto", pixels, step)


def fit(trainer: pl.Trainer, model: pl.LightningModule, data: pl.LightningDataModule, checkpoint: Path | None) -> None:
    """Train; what Lightning and torch say about a user's mistake becomes one sentence."""
    try:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # what Lightning makes of Ctrl+C and SIGTERM
        raise KeyboardInterrupt from stop
    except MisconfigurationException as error:
        raise AnimegenError(f"Lightning refuses this configuration: {' '.join(str(error).split())}") from error
    except torch.OutOfMemoryError as error:
        raise AnimegenError(
            "The memory of the device is too small: set model.accumulate=2 (same gradients, less memory), or a smaller"
            " data.batch_size or data.image_size."
        ) from error
    except RuntimeError as error:
        if "DTensor" in str(error):
            raise AnimegenError(
                "trainer=fsdp cannot cut up this model, which calls parts of its networks alone: use trainer=ddp."
            ) from error
        if checkpoint is None or "loading state_dict" not in str(error):
            raise
        raise AnimegenError(
            f"The weights in '{checkpoint}' do not fit this model: resume with the model configuration of the run."
        ) from error


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - global state that users' losses and plugins may draw from
    torch.manual_seed(seed)


class _Failed(BaseException):
    """Carries the error of a single run past Hydra, which would print a report of its own."""


@hydra.main(version_base="1.3", config_path="pkg://animegen.conf", config_name="train")
def job(config: DictConfig) -> float | None:
    """One run."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    choices = {name: choice for name, choice in settings.runtime.choices.items() if not name.startswith("hydra/")}
    overrides = list(settings.overrides.task)
    try:
        return train(config, folder, choices, overrides)
    except Exception as error:
        raise _Failed from error


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen train`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        if any(word.startswith("study=") for word in words):
            return run_study(words)
        if is_sweep(words):
            return run_sweep(words)
        if any(word.startswith("rerun=") for word in words):
            return rerun(words)
        register()
        if any(word in ("-h", "--help") for word in words):
            print(help_text())
            return 0
        overrides, options = words, []
        if not any(word.startswith("-") for word in words):
            overrides = resumed_overrides(words)
            compose_config("train", overrides)  # tells mistakes in our words before Hydra does in its own
        else:
            # Hydra wants all overrides together.
            overrides = [w for w in words if not w.startswith("-") and ("=" in w or w.startswith("~"))]
            options = [w for w in words if w not in overrides]
        # Hydra then hands us exceptions as they are.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        sys.argv = [sys.argv[0], *overrides, *options]
        try:
            job()
        except _Failed as failed:
            error = failed.__cause__ or failed
            raise error from error.__cause__  # with its own history, which --debug shows
        except (HydraException, OmegaConfBaseException) as error:
            raise AnimegenError(explain(error, "train", overrides)) from error
        except OSError as error:
            raise unwritable(error.filename, error) from error
        return 0

    return run(body)


def rerun(words: list[str]) -> int:
    """Run ``animegen train rerun=<run folder>``: the configuration of its record, whatever the files say now."""
    again = plan_rerun(words)
    for line in again.notes:
        print(line, file=sys.stderr)
    # Further processes of distributed training start with the same words, and must find the same folder.
    sys.argv = [sys.argv[0], *again.words]
    train(again.config, again.folder, again.choices, again.overrides)
    return 0


def help_text() -> str:
    """Return what ``animegen train --help`` prints."""
    groups: dict[str, list[str]] = {}
    for option in list_options():
        group, _, name = option.partition("/")
        groups.setdefault(group, []).append(name)
    return HELP + "\n".join(f"  {group:<11} {', '.join(names)}" for group, names in groups.items())


if __name__ == "__main__":
    sys.exit(main())
