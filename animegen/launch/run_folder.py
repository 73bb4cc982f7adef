"""The folder of a training run: replacement of an earlier run, and the start of writing."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from omegaconf import OmegaConf

from animegen.config.compose import run_folder
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.runs import LAST, RUN_FILES, is_run
from animegen.errors import AnimegenError
from animegen.files import completed, real_path
from animegen.launch.run_plan import Parts, Plan
from animegen.launch.trainer import show_config
from animegen.outputs import STATE, Replacement

log = logging.getLogger(__name__)


def check_free(plan: Plan) -> None:
    """Raise if a folder contains a run that is neither resumed nor replaced, or files that animegen did not write."""
    if plan.in_place:
        return
    if not plan.config.overwrite and is_run(plan.folder):
        raise AnimegenError(
            f"'{plan.folder}' already holds a run: choose another output=, resume={plan.folder}, or overwrite=true."
        )
    plan.output.check(RUN_FILES)


def prepare(plan: Plan, parts: Parts, held: contextlib.ExitStack) -> Replacement:
    """Lock the folder of the run until its end, and set aside the files that it replaces.

    An old run is restored if the new one fails before its first checkpoint. The files of a resumed run are changed
    after its first train step: until then it may be refused.
    """
    if not parts.trainer.is_global_zero:
        return Replacement.none()
    output = plan.output
    held.enter_context(output.held())
    check_free(plan)  # another command may have started a run
    writes = [*plan.writes(), *parts.writes()]
    if plan.in_place and not (plan.folder / STATE).exists():
        output.claim(writes, check=False)  # a run without the hidden file, such as a copy
    log.info("run folder: %s", plan.folder)
    if not plan.in_place and not is_run(plan.folder):
        output.remove()  # files of an attempt without a checkpoint
        output.claim(writes)
        begin(plan, parts)
        return Replacement.none()
    if not plan.in_place:
        check_not_trained_on(plan, parts)
    replacement = held.enter_context(output.replacing(writes, old=() if plan.in_place else None, until=LAST))

    def begin_resumed() -> None:
        replacement.keep()
        parts.record.begin()
        begin(plan, parts)

    if not plan.in_place:
        begin(plan, parts)
        parts.callbacks.insert(1, Once(lambda: (plan.folder / LAST).exists(), replacement.keep))
    elif not plan.only_score:
        parts.callbacks.insert(1, Once(lambda: True, begin_resumed))
    return replacement


def check_not_trained_on(plan: Plan, parts: Parts) -> None:
    """Raise if files of the replaced run are training data of the new one."""
    trained_on = {real_path(path) for path in parts.files}
    for name in plan.output.files():
        if real_path(plan.folder / name) in trained_on:
            raise AnimegenError(
                f"'{plan.folder / name}' is a training file that belongs to the replaced run: copy it first."
            )


class Once(pl.Callback):
    """Call a function once, after the first train step at which a condition holds."""

    def __init__(self, condition: Callable[[], bool], act: Callable[[], None]) -> None:
        self._condition, self._act = condition, act
        self._done = False

    def on_train_batch_end(self, *_: Any) -> None:
        """Call the function if the condition holds."""
        if not self._done and self._condition():
            self._done = True
            self._act()


def begin(plan: Plan, parts: Parts) -> None:
    """Write the configuration into the run folder and to TensorBoard, and copy the best checkpoint so far."""
    texts = {
        "config.yaml": OmegaConf.to_yaml(plan.config),
        "overrides.yaml": OmegaConf.to_yaml(plan.facts["overrides"]),
    }
    for name, text in texts.items():
        with completed(plan.folder / "config" / name) as hidden:
            hidden.write_text(text)
    show_config(parts.trainer, plan.config, plan.step)
    if plan.checkpoint is not None and not plan.in_place:
        copy_best(plan.checkpoint, plan.folder, plan.step)


def copy_best(checkpoint: Path, folder: Path, step: int) -> None:
    """Copy ``best.ckpt`` of a run that is resumed in another folder, unless it is of a later step."""
    best = run_folder(checkpoint) / "checkpoints" / "best.ckpt"
    with contextlib.suppress(AnimegenError):  # there is none, or it is damaged
        if read_checkpoint(best)["animegen"]["train_step"] <= step:
            with completed(folder / "checkpoints" / best.name) as hidden:
                try:
                    os.link(best, hidden)
                except OSError:  # another file system, or one without hard links
                    shutil.copyfile(best, hidden)
