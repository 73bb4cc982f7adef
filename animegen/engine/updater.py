"""The updates of a train step in plain PyTorch: losses, gradients, clipping, optimizers, averages."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from animegen.engine.gradient_norms import relative_gradient_norms
from animegen.engine.module import AnimeModule
from animegen.engine.objective import Evaluation
from animegen.engine.step_log import not_finite
from animegen.errors import AnimegenError, did_you_mean


class Stepped(NamedTuple):
    """Optimizer of an update and its learning rate scheduler."""

    optimizer: Any
    scheduler: Any


class Updater:
    """Performs the updates that a model defines; a train step has the same meaning for all models.

    Args:
        model: the model.
        stepped: update name -> optimizer and scheduler.
        backward: computes the gradients of a loss.
        no_sync: context of backward passes whose gradients are not yet exchanged between processes.
    """

    def __init__(
        self,
        model: AnimeModule,
        stepped: Mapping[str, Stepped],
        backward: Callable[[Tensor], None] = Tensor.backward,
        no_sync: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> None:
        self.model, self._stepped = model, dict(stepped)
        self._backward, self._no_sync = backward, no_sync
        #: Number of chunks of each batch.
        self.accumulate = model.settings.accumulate
        # Some may share parameters: a network can consist of parts of others.
        names = dict.fromkeys(model.trains.get(update, update) for update in self._stepped)
        self._parameters = {name: list(model.network(name).parameters()) for name in names}

    def step(self, batch: dict[str, Tensor]) -> None:
        """Perform all updates of one batch.

        Raises:
            AnimegenError: for an update without an optimizer, and on the CPU for a loss that is not finite.
        """
        model = self.model
        model.start_step()
        for objective in model.objectives.values():
            objective.step = model.train_step
        model.scalars.begin()
        if self.accumulate == 1:
            done: set[str] = set()
            for name, evaluation in model.updates(batch):
                if name in done:
                    model.scalars.restart(f"train/{name}/")
                done.add(name)
                self._compute(name, evaluation, share=1.0)
                self._apply(name)
        else:
            self._accumulated(batch)
        if model.ema is not None:
            model.ema.update()
        model.train_step += 1

    def _accumulated(self, batch: dict[str, Tensor]) -> None:
        """Perform each update over all chunks of the batch before the next one."""
        chunks = _chunks(batch, self.accumulate)
        total = sum(size for _, size in chunks)
        position = 0
        done: set[str] = set()
        while True:
            name = None
            for number, (chunk, size) in enumerate(chunks):
                step = next((s for i, s in enumerate(self.model.updates(chunk)) if i == position), None)
                if step is None:
                    break
                name, evaluation = step
                if number == 0 and name in done:
                    self.model.scalars.restart(f"train/{name}/")
                last = number == len(chunks) - 1
                with contextlib.nullcontext() if last else self._no_sync():
                    self._compute(name, evaluation, share=size / total)
            if name is None:
                return
            done.add(name)
            self._apply(name)
            position += 1

    def _compute(self, name: str, evaluation: Evaluation, share: float) -> None:
        """Compute and log the loss of an update, and accumulate its gradients, weighted by ``share``."""
        log, step, every = self.model.scalars, self.model.train_step, self.model.settings.gradient_norms
        with trained_alone(self._parameters, self._network_of(name)):
            evaluation.apart = bool(every) and step % every == 0
            total, terms = evaluation.compute()
            if evaluation.apart:
                for term, value in relative_gradient_norms(evaluation.parts, self._parameters_of(name)).items():
                    log.add(f"train/{name}/{term}_relative_grad_norm", share * value)
            for term, value in {**terms, "total": total}.items():
                log.add(f"train/{name}/{term}", share * value.detach())
            # On an accelerator the check would stall each step, and is left to the log.
            if total.device.type == "cpu" and not math.isfinite(total.item()):
                log.finite_means(step + 1)
            self._backward(total * share if share != 1.0 else total)

    def _apply(self, name: str) -> None:
        """Clip the gradients of an update, and step its optimizer and schedule."""
        optimizer, scheduler = self._stepped[name]
        limit = self.model.settings.clip_of(name)
        if limit or (self.model.train_step + 1) % self.model.log_every == 0:
            gradients = [p.grad for p in self._parameters_of(name) if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if limit:
                nn.utils.clip_grads_with_norm_(self._parameters_of(name), float(limit), norm)
            self.model.scalars.add(f"train/{name}/grad_norm", norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if scheduler is not None:
            scheduler.step()

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of each update as ``opt/lr/<update>``."""
        return {f"opt/lr/{name}": step.optimizer.param_groups[0]["lr"] for name, step in self._stepped.items()}

    def check_weights(self) -> None:
        """Check the weights of all networks.

        Raises:
            AnimegenError: if any is NaN or infinite.
        """
        for name, parameters in self._parameters.items():
            # The norm, not the largest weight, which an empty shard of a sharded network does not have.
            norm = nn.utils.get_total_norm(parameters).item()
            if not math.isfinite(norm):
                raise not_finite(f"The weights of '{name}'", norm, self.model.train_step)

    def _network_of(self, update: str) -> str:
        if update not in self._stepped:
            raise AnimegenError(
                f"The model yields the update '{update}', which has no optimizer;"
                f" add model.optimizers.{update}.{did_you_mean(update, self._stepped)}"
            )
        return self.model.trains.get(update, update)

    def _parameters_of(self, update: str) -> list[nn.Parameter]:
        return self._parameters[self._network_of(update)]


@contextlib.contextmanager
def trained_alone(parameters: Mapping[str, Sequence[nn.Parameter]], trained: str) -> Iterator[None]:
    """Freeze all networks but one inside the ``with`` block, so that no others get gradients.

    Args:
        parameters: network name -> parameters.
        trained: name of the network that is not frozen.
    """
    kept = {id(p) for p in parameters[trained]}
    others = [p for name, ps in parameters.items() if name != trained for p in ps if p.requires_grad]
    others = [p for p in others if id(p) not in kept]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


def _chunks(batch: dict[str, Tensor], count: int) -> list[tuple[dict[str, Tensor], int]]:
    """Cut all tensors of a batch into ``count`` pieces along the first axis; return pieces and their sizes."""
    size = len(next(iter(batch.values())))
    bounds = [round(size * i / count) for i in range(count + 1)]
    pairs = [(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    return [({name: value[a:b] for name, value in batch.items()}, b - a) for a, b in pairs]
