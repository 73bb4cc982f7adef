"""The Lightning trainer of a run, with readable errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from animegen.config.compose import plain
from animegen.config.instantiate import build, finish
from animegen.engine import callbacks
from animegen.engine.lightning import LightningAdapter
from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError
from animegen.media.images import read_image
from animegen.nn.precision import computes_bf16, trainer_precision
from animegen.nn.weight_files import first_line
from animegen.reports.pareto import PARETO

log = logging.getLogger(__name__)

#: Overrides that set a value of the model or the data, and choose no class.
_SETTING = re.compile(r"\+*(model|data|size)\.(?!.*_target_).+=")
#: Settings of Lightning's trainer that would end a run at another step than ``train_steps``, with their neutral values.
LENGTHS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("max_steps", "max_epochs"), (-1, None)),
    **dict.fromkeys(("min_steps", "min_epochs"), (0, None)),
    **dict.fromkeys(("fast_dev_run", "overfit_batches"), (0, False, None)),
    "limit_train_batches": (1.0, None),
}


def check_length(config: DictConfig) -> None:
    """Raise for settings of the trainer that contradict ``train_steps``."""
    settings = plain(config)["trainer"] or {}
    for key, neutral in LENGTHS.items():
        value = settings.get(key, neutral[0])
        one_batch = key == "limit_train_batches" and type(value) is int  # 1, where 1.0 means all
        if value not in neutral or one_batch:
            raise AnimegenError(
                f"trainer.{key}={value} contradicts train_steps={config.train_steps}, which sets the length of a run:"
                f" leave trainer.{key} out."
            )


def build_trainer(config: DictConfig, folder: Path, record: callbacks.RunRecord, step: int) -> pl.Trainer:
    """Return the trainer with its callbacks and loggers.

    Args:
        config: of the run.
        folder: of the run.
        record: the callback that writes ``run.json``.
        step: the train step of the resumed checkpoint, else 0.
    """
    chosen = {
        name: build(node, f"callbacks.{name}", pl.Callback) for name, node in (config.callbacks or {}).items() if node
    }
    checkpoints = [callback for callback in chosen.values() if isinstance(callback, callbacks.Checkpoints)]
    others = [callback for callback in chosen.values() if callback not in checkpoints]
    # Checkpoints come last, so that they contain the changes of all other callbacks at that step.
    ordered = [callbacks.ExactResume(), record, callbacks.StopAfter(config.train_steps), *others, *checkpoints]
    ordered.append(callbacks.StopOnSignal(checkpoints))
    loggers = []
    for name, node in (config.logger or {}).items():
        if node:
            loggers.append(build({**node, "save_dir": str(folder)}, f"logger.{name}", Logger))
            if step and isinstance(loggers[-1], callbacks.Resumable):
                loggers[-1].resume_at(step)
    settings = plain(config)["trainer"]
    settings["precision"] = _precision(settings)
    make = build({**settings, "_partial_": True}, "trainer")
    trainer: pl.Trainer = finish(
        make, "trainer", callbacks=ordered, logger=loggers or False, default_root_dir=str(folder)
    )
    return trainer


def _precision(settings: dict[str, Any]) -> Any:
    """Return the precision for settings of a trainer; warn of bf16 on a processor that has to emulate it."""
    accelerated = settings.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if accelerated else "cpu")
    chosen = settings.get("precision")
    if chosen == "bf16-mixed" and not accelerated and not computes_bf16(device):
        log.warning(
            "This processor has no instructions for bf16 and emulates it, which takes 10 to 20 times as long as fp32:"
            " use precision=auto or fp32."
        )
    return trainer_precision(chosen, device) if isinstance(chosen, str) else chosen


def fit(
    trainer: pl.Trainer,
    model: AnimeModule,
    data: pl.LightningDataModule,
    checkpoint: Path | None,
    overrides: Sequence[str] = (),
) -> None:
    """Train, from a checkpoint if one is given.

    Args:
        trainer: the trainer.
        model: the model.
        data: its data.
        checkpoint: the checkpoint to resume.
        overrides: words of the command line, which are blamed if the first step fails.

    Raises:
        AnimegenError: for errors of Lightning and torch that a user can cause.
        KeyboardInterrupt: after Ctrl+C or SIGTERM.
    """
    try:
        trainer.fit(LightningAdapter(model), datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:  # what Lightning makes of Ctrl+C and SIGTERM
        raise KeyboardInterrupt from stop
    except MisconfigurationException as error:
        raise AnimegenError(f"Lightning refuses this configuration: {' '.join(str(error).split())}") from error
    except torch.OutOfMemoryError as error:
        raise AnimegenError(
            "The device is out of memory: set model.accumulate=2 (same gradients, less memory), or a smaller"
            " data.batch_size or data.image_size."
        ) from error
    except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError) as error:
        if "DTensor" in str(error):
            raise AnimegenError(
                "trainer=fsdp cannot shard this model, which calls parts of its networks separately: use trainer=ddp."
            ) from error
        resumes = [each for each in trainer.callbacks if isinstance(each, callbacks.ExactResume)]  # type: ignore[attr-defined]
        begun = any(each.begun for each in resumes)
        if checkpoint is None or begun:
            changed = [word for word in overrides if _SETTING.match(word)]
            if model.train_step > 0 or not changed:
                raise
            raise AnimegenError(
                f"The first train step fails with {' '.join(changed)} ({type(error).__name__}, {first_line(error)}):"
                " correct these settings, or add --debug to see where."
            ) from error
        if "loading state_dict" not in str(error):
            raise AnimegenError(
                f"'{checkpoint}' cannot be resumed: it is damaged or of another model ({type(error).__name__},"
                f" {first_line(error)}). Use another checkpoint of the run."
            ) from error
        raise AnimegenError(
            f"The weights in '{checkpoint}' do not fit this model: resume with the model configuration of the run."
        ) from error


def show_config(trainer: pl.Trainer, config: DictConfig, step: int) -> None:
    """Add the configuration to TensorBoard's TEXT tab."""
    for experiment in _tensorboards(trainer):
        experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(config, resolve=True)}\n```", step)


def show_pareto(trainer: pl.Trainer, folder: Path, step: int) -> None:
    """Add the consistency plot of an evaluation on clips to TensorBoard's IMAGES tab, if there is one."""
    if (folder / PARETO).is_file():
        pixels = read_image(folder / PARETO)
        for experiment in _tensorboards(trainer):
            experiment.add_image("eval/pareto", pixels, step)


def _tensorboards(trainer: pl.Trainer) -> list[Any]:
    return [each.experiment for each in trainer.loggers if isinstance(each, pl.loggers.TensorBoardLogger)]
