"""``run.json``: configuration, machine, metrics and status of a run, also of a crashed one."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from animegen.engine.callbacks.dashboard import final_scores, hyperparameters
from animegen.engine.lightning import LightningAdapter
from animegen.engine.machine import git_state, machine, versions
from animegen.engine.runs import RECORD, RESUMED, read_record
from animegen.errors import AnimegenError
from animegen.files import completed


class RunRecord(pl.Callback):
    """Keep ``run.json`` in the run folder up to date.

    It holds the configuration, the group choices, the ablations, versions, git state, machine, timings, metrics and the
    status: ``running`` (also after the process was killed), ``trained`` (evaluation follows), ``finished``,
    ``interrupted``, or ``crashed``, with the error. TensorBoard's HPARAMS tab gets settings and final scores.

    Args:
        folder: the run folder.
        facts: plain values that are known at the start (config, choices, overrides).
        resumed: whether the run in the folder is resumed. Its record is not changed before :meth:`begin`. The record of
            a finished run is kept until the resumed run is finished; until then the new one is ``resumed.json``.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], resumed: bool = False) -> None:
        self.final = Path(folder) / RECORD
        finished = resumed and read_record(folder).get("status") == "finished"
        self.path = Path(folder) / RESUMED if finished else self.final
        self._held_back = resumed
        self._began = self._train_began = time.monotonic()
        self.record: dict[str, Any] = {
            "status": "running",
            **facts,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["animegen", "train", *facts.get("overrides", [])]),
            "versions": versions(),
            "git": git_state(),
            "machine": machine(),
            "metrics": {},
            "seconds": {},
        }

    def begin(self) -> None:
        """Start to write the record of a resumed run; called after all checks."""
        self._held_back = False
        self._write(True)

    def on_fit_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Record the sizes of the networks, and write."""
        self.record["parameters"] = {
            name: sum(p.numel() for p in network.parameters()) for name, network in module.model.networks().items()
        }
        if (features := module.model.features) is not None:
            self.record["features"] = getattr(features, "name", type(features).__name__)
        self.record["resumed_at"] = module.train_step or None
        self._write(trainer.is_global_zero)

    def on_train_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Record the time of the preparation."""
        self.record["seconds"]["prepare"] = round(time.monotonic() - self._began, 2)
        self._train_began = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Record the metrics."""
        self.update(module)
        self._write(trainer.is_global_zero)

    def on_train_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Record the end of training."""
        self.record["seconds"]["train"] = round(time.monotonic() - self._train_began, 2)
        self.record["status"] = "trained"
        self.update(module)
        self._write(trainer.is_global_zero)

    def on_exception(self, trainer: pl.Trainer, module: LightningAdapter, exception: BaseException) -> None:
        """Record why the training failed."""
        self.update(module)
        self.fail(trainer, exception)

    def fail(self, trainer: pl.Trainer, exception: BaseException) -> None:
        """Record why the run failed."""
        # Lightning turns Ctrl+C and SIGTERM into SystemExit.
        interrupted = isinstance(exception, (KeyboardInterrupt, SystemExit))
        self.record["status"] = "interrupted" if interrupted else "crashed"
        if not interrupted:
            self.record["error"] = f"{type(exception).__name__}: {exception}"
        with contextlib.suppress(AnimegenError):  # the disk may be full
            self._write(trainer.is_global_zero)

    def update(self, module: LightningAdapter) -> None:
        """Copy step, metrics and calibration factors of the module."""
        self.record["train_step"] = module.train_step
        self.record["metrics"].update(module.shown)
        factors = {
            name: {term: round(factor, 6) for term, factor in objective.factors.items() if factor != 1.0}
            for name, objective in module.model.objectives.items()
        }
        self.record["calibration"] = {name: terms for name, terms in factors.items() if terms}

    def finish(self, trainer: pl.Trainer, train_step: int, evaluation: dict[str, Any] | None) -> None:
        """Add the evaluation, mark the run as finished, and write hyperparameters and final scores."""
        if evaluation is not None:
            self.record["evaluation"] = evaluation
        self.record["status"] = "finished"
        self.record["seconds"]["total"] = round(time.monotonic() - self._began, 2)
        self._held_back = False
        self._write(trainer.is_global_zero)
        if trainer.is_global_zero:
            if self.path != self.final:
                os.replace(self.path, self.final)
            self._hparams(trainer, train_step)

    def _hparams(self, trainer: pl.Trainer, step: int) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.TensorBoardLogger):
                logger.log_hyperparams(hyperparameters(self.record), final_scores(self.record), step)
                logger.finalize("success")

    def _write(self, here: bool) -> None:
        if here and not self._held_back:
            with completed(self.path) as hidden:
                hidden.write_text(json.dumps(self.record, indent=2, default=str) + "\n")
