"""Influence calibration: loss weights that are independent of the feature network.

Published loss weights assume the activations of one network (Caffe's VGG19 for the AnimeGAN family); with another one
the same weights give other gradients. This callback measures the gradient norm of each term on the trained network and
rescales the weights to configured ratios of these norms.
"""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch

from animegen.engine.gradient_norms import gradient_norms
from animegen.engine.lightning import LightningAdapter
from animegen.errors import AnimegenError, did_you_mean


class InfluenceCalibration(pl.Callback):
    """Measure the gradient norm of each term over some batches, then set the factors of the terms.

    The influence of a term is the L2 norm of the gradient of its weighted loss with respect to the parameters of the
    trained network, averaged over the batches. After calibration the influences of the named terms have the configured
    ratios, and their sum is unchanged. The factors are saved with the objective and listed in the run record as
    ``calibration``. The measurement has no side effects on buffers and random generators.

    Args:
        ratios: term -> share of influence (any positive numbers); ``null`` excludes a term.
        update: name of the update whose objective is calibrated.
        at: train step of the measurement; only terms that are active then can be calibrated.
        batches: number of consecutive batches to average over; they are trained on as usual.

    Raises:
        AnimegenError: for invalid settings.
    """

    def __init__(
        self, ratios: dict[str, float | None], update: str = "generator", at: int = 0, batches: int = 8
    ) -> None:
        wanted = {name: ratio for name, ratio in ratios.items() if ratio is not None}
        if not wanted or min(wanted.values()) <= 0:
            raise AnimegenError("callbacks.calibration.ratios needs a positive number for each term.")
        if batches < 1:
            raise AnimegenError(f"callbacks.calibration.batches must be at least 1, got {batches}.")
        self.update, self.ratios, self.at, self.batches = update, wanted, at, batches
        self._sums: dict[str, float] = {}
        self._count = 0

    def on_fit_start(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        """Check the names of update and terms."""
        objectives = module.model.objectives
        if self.update not in objectives:
            names = ", ".join(objectives)
            raise AnimegenError(f"callbacks.calibration.update={self.update}: the model has the objectives {names}.")
        terms = list(objectives[self.update].terms)
        for name in self.ratios:
            if name not in terms:
                raise AnimegenError(
                    f"callbacks.calibration.ratios names '{name}', which is not a term of '{self.update}'"
                    f" ({', '.join(terms)}).{did_you_mean(name, terms)}"
                )

    def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, batch: Any, batch_idx: int) -> None:
        """Measure on the next batch; set the factors after the last one."""
        if not self.at <= module.train_step < self.at + self.batches:
            return
        devices = [module.device] if module.device.type == "cuda" else []
        buffers = {buffer: buffer.clone() for buffer in module.buffers()}
        with torch.random.fork_rng(devices=devices):
            for name, influence in self._measure(module, batch).items():
                self._sums[name] = self._sums.get(name, 0.0) + influence
        with torch.no_grad():
            for buffer, before in buffers.items():
                buffer.copy_(before)
        self._count += 1
        if module.train_step == self.at + self.batches - 1:
            self._set(module)

    def _measure(self, module: LightningAdapter, batch: Any) -> dict[str, float]:
        model = module.model
        for each in model.objectives.values():
            each.step = model.train_step
        network = model.networks()[model.trains.get(self.update, self.update)]
        parameters = list(network.parameters())
        with module.trainer.precision_plugin.forward_context():
            evaluation = next((e for name, e in model.updates(batch) if name == self.update), None)
            if evaluation is None:
                raise AnimegenError(
                    f"callbacks.calibration.at={self.at}: the model does not train '{self.update}' at that step;"
                    " set at= to a step of the phase that does."
                )
            evaluation.apart = True
            _, values = evaluation.compute()
        for name in self.ratios:
            if name not in values:
                raise AnimegenError(
                    f"callbacks.calibration: the term '{name}' is not active at step {module.train_step}."
                )
        norms = gradient_norms({name: evaluation.parts[name] for name in self.ratios}, parameters)
        # With several processes, each one measures on its part of the batch.
        return {name: float(module.trainer.strategy.reduce(norm, reduce_op="mean")) for name, norm in norms.items()}

    def _set(self, module: LightningAdapter) -> None:
        objective = module.model.objectives[self.update]
        influence = {name: self._sums[name] / self._count for name in self.ratios}
        for name, value in influence.items():
            if not 0 < value < math.inf:
                raise AnimegenError(
                    f"callbacks.calibration: the gradient of the term '{name}' on '{self.update}' has the norm {value},"
                    " which cannot be scaled: leave the term out of callbacks.calibration.ratios."
                )
        total, ratios = sum(influence.values()), sum(self.ratios.values())
        for name, ratio in self.ratios.items():
            objective.factors[name] *= total * (ratio / ratios) / influence[name]

    def state_dict(self) -> dict[str, Any]:
        """Return the sums measured so far."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the sums measured so far."""
        self._sums, self._count = dict(state["sums"]), int(state["count"])
