"""AnimeModule, the base of all models: a model defines its updates, the base class performs them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from animegen.config.instantiate import finish
from animegen.engine.ema import Ema
from animegen.engine.gradient_norms import relative_gradient_norms
from animegen.engine.logged import ValidatedModule
from animegen.engine.objective import Evaluation, Objective, Objectives
from animegen.engine.sharded import shard
from animegen.errors import AnimegenError, did_you_mean

Updates = Iterator[tuple[str, Evaluation]]
"""Pairs of the name of an update and its bound objective."""


class _Stepped(NamedTuple):
    """Optimizer of an update, wrapped by Lightning, and its learning rate scheduler."""

    optimizer: Any
    scheduler: Any


class AnimeModule(ValidatedModule):
    """LightningModule with manual optimisation, in which a train step has the same meaning for all models.

    A subclass creates its networks as attributes and defines :meth:`updates`, a generator::

        def updates(self, batch):
            fake = self.generator(batch["photo"])
            yield "discriminator", self.objectives["discriminator"](fake=fake.detach(), ...)
            yield "generator", self.objectives["generator"](fake=fake, ...)

    After each ``yield`` this class evaluates the bound objective with all other networks frozen, computes gradients,
    clips them, steps the optimizer of that name and its schedule, and resumes the generator. It also updates the EMA,
    logs, and stops at the first value that is not finite.

    Args:
        optimizers: update name -> partial optimizer, called with the parameters. An update has the name of the network
            that it trains unless :attr:`trains` maps it to another one.
        objectives: update name -> :class:`~animegen.engine.objective.Objective`.
        schedulers: update name -> partial ``torch.optim.lr_scheduler``, called with the optimizer; stepped with it.
        features: frozen network for feature losses, see :class:`~animegen.nn.features.FeatureExtractor`.
        ema: ``{networks: [...], decay: ...}`` or ``None``. Validation, previews, application and export use the
            averaged weights if there are any.
        clip: largest gradient norm, one number for all updates or a dict by update name.
        accumulate: number of chunks of each batch, to save memory. The gradient is that of the whole batch (for losses
            that average over samples), and a step is still one batch: each update processes all chunks before the next
            update starts, which repeats forward passes.
        compile: names of networks to ``torch.compile`` in training; checkpoint keys do not change.
        channels_last: keep weights and activations of convolutions in NHWC memory format.
        gradient_norms: interval in train steps at which the gradient norm of each weighted loss term is logged,
            relative to the sum over all terms of the update, as ``train/<update>/<term>_relative_grad_norm``. These
            steps need one more backward pass per term. 0 for never.

    Raises:
        AnimegenError: for invalid settings.
    """

    #: Update name -> network name, for updates that are not named after their network.
    trains: Mapping[str, str] = {}
    #: Whether ``anime`` of a training batch has to be the drawing of its ``photo``.
    needs_pairs = False

    def __init__(
        self,
        optimizers: Mapping[str, Callable[..., torch.optim.Optimizer]] | None = None,
        objectives: Mapping[str, Objective] | None = None,
        schedulers: Mapping[str, Callable[..., Any] | None] | None = None,
        features: nn.Module | None = None,
        ema: Mapping[str, Any] | None = None,
        clip: float | Mapping[str, float] | None = None,
        accumulate: int = 1,
        compile: list[str] | None = None,
        channels_last: bool = False,
        gradient_norms: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        #: Facts about the run for its checkpoints: version, config, choices.
        self.run_info: dict[str, Any] = {}
        self.features = features or None
        self.objectives = Objectives({name: o for name, o in (objectives or {}).items() if o is not None})
        for objective in self.objectives.values():
            objective.shared["features"] = self.features
        if accumulate < 1:
            raise AnimegenError(f"model.accumulate must be at least 1, got {accumulate}.")
        if gradient_norms < 0:
            raise AnimegenError(f"model.gradient_norms={gradient_norms} must be a number of steps, or 0 for never.")
        for name, limit in clip.items() if isinstance(clip, Mapping) else [("", clip)]:
            if limit is not None and not limit > 0:
                key = f"model.clip.{name}" if name else "model.clip"
                raise AnimegenError(f"{key}={limit} is no gradient norm: give a number above 0, or null for no limit.")
        self._accumulate = accumulate
        self._gradient_norms = gradient_norms
        self._clip = clip
        self._compile = list(compile or [])
        self._channels_last = channels_last
        self._optimizer_factories = {name: make for name, make in (optimizers or {}).items() if make is not None}
        self._scheduler_factories = {name: make for name, make in (schedulers or {}).items() if make is not None}
        self._ema_settings = dict(ema) if ema else None
        self._ema: Ema | None = None
        self._ema_state: dict | None = None
        self._stepped: dict[str, _Stepped] = {}

    # --- the interface of a model --------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield ``(update name, bound objective)`` in the order of the updates of one step."""
        raise NotImplementedError(f"{type(self).__name__} has to define updates(batch)")

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return named images ``(B,3,H,W)`` or clips ``(B,T,3,H,W)`` in [-1,1], in display order."""
        return {name: value for name, value in batch.items() if value.ndim >= 4}

    def networks(self) -> dict[str, nn.Module]:
        """Return the trainable networks by name; by default those of the optimizers."""
        names = dict.fromkeys(self.trains.get(update, update) for update in self._optimizer_factories)
        return {name: self._network(name) for name in names}

    # --- one step ------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> None:
        """Perform all updates of one batch."""
        for objective in self.objectives.values():
            objective.step = self.train_step
        self._log.begin()
        if self._accumulate == 1:
            done: set[str] = set()
            for name, evaluation in self.updates(batch):
                if name in done:
                    self._log.restart(f"train/{name}/")
                done.add(name)
                self._backward(name, evaluation, share=1.0)
                self._step(name)
        else:
            self._accumulated(batch)
        if self._ema is not None:
            self._ema.update()
        self.train_step += 1
        if self.train_step % self.log_every == 0:
            self.flush_log()

    def _accumulated(self, batch: dict[str, Tensor]) -> None:
        """Perform each update over all chunks of the batch before the next one."""
        chunks = _chunks(batch, self._accumulate)
        total = sum(size for _, size in chunks)
        position = 0
        done: set[str] = set()
        while True:
            name = None
            for number, (chunk, size) in enumerate(chunks):
                step = next((s for i, s in enumerate(self.updates(chunk)) if i == position), None)
                if step is None:
                    break
                name, evaluation = step
                if number == 0 and name in done:
                    self._log.restart(f"train/{name}/")
                last = number == len(chunks) - 1
                with contextlib.nullcontext() if last else self._without_sync():
                    self._backward(name, evaluation, share=size / total)
            if name is None:
                return
            done.add(name)
            self._step(name)
            position += 1

    def _backward(self, name: str, evaluation: Evaluation, share: float) -> None:
        """Compute and log the loss of an update, and accumulate its gradients, weighted by ``share``."""
        with self._only(self._network_of(name)):
            evaluation.apart = bool(self._gradient_norms) and self.train_step % self._gradient_norms == 0
            total, terms = evaluation.compute()
            if evaluation.apart:
                for term, value in relative_gradient_norms(evaluation.parts, self._parameters_of(name)).items():
                    self._log.add(f"train/{name}/{term}_relative_grad_norm", share * value)
            for term, value in {**terms, "total": total}.items():
                self._log.add(f"train/{name}/{term}", share * value.detach())
            self.check_loss(total)
            self.manual_backward(total * share if share != 1.0 else total)

    def _step(self, name: str) -> None:
        """Clip the gradients of an update, and step its optimizer and schedule."""
        optimizer, scheduler = self._stepped[name]
        limit = self._clip.get(name) if isinstance(self._clip, Mapping) else self._clip
        if limit or (self.train_step + 1) % self.log_every == 0:
            gradients = [p.grad for p in self._parameters_of(name) if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            if limit:
                nn.utils.clip_grads_with_norm_(self._parameters_of(name), float(limit), norm)
            self._log.add(f"train/{name}/grad_norm", norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if scheduler is not None:
            scheduler.step()

    @contextlib.contextmanager
    def _only(self, trained: str) -> Iterator[None]:
        """Freeze all trainable networks but one, so that no others get gradients."""
        others = [p for name, ps in self._network_parameters.items() if name != trained for p in ps if p.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def _without_sync(self) -> contextlib.AbstractContextManager:
        strategy = self.trainer.strategy
        block = getattr(strategy, "block_backward_sync", None)
        return block() if block is not None else contextlib.nullcontext()

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of each update as ``opt/lr/<update>``."""
        return {f"opt/lr/{name}": step.optimizer.param_groups[0]["lr"] for name, step in self._stepped.items()}

    # --- optimizers and networks ---------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Build the named optimizers and schedulers."""
        optimizers, schedulers = [], []
        self._check_names("schedulers", self._scheduler_factories)
        self._check_names("clip", self._clip if isinstance(self._clip, Mapping) else ())
        for name, make in self._optimizer_factories.items():
            parameters = list(self._network(self.trains.get(name, name)).parameters())
            optimizers.append(finish(make, f"model.optimizers.{name}", parameters))
            if name in self._scheduler_factories:
                schedule = self._scheduler_factories[name]
                check_schedule(schedule, f"model.schedulers.{name}")
                schedulers.append(finish(schedule, f"model.schedulers.{name}", optimizers[-1]))
        return optimizers, schedulers

    def _check_names(self, setting: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._optimizer_factories:
                known = ", ".join(self._optimizer_factories)
                raise AnimegenError(
                    f"model.{setting} names '{name}', which has no optimizer; optimizers: {known}."
                    + did_you_mean(name, self._optimizer_factories)
                )

    def configure_model(self) -> None:
        """Shard the networks for a sharded strategy; called by Lightning."""
        shard(self, self.networks())

    def setup(self, stage: str) -> None:
        """Set the memory format and compile; called by Lightning."""
        if self._channels_last:
            # Including the feature network, which would otherwise convert its input in each pass.
            self.to(memory_format=torch.channels_last)
        if stage == "fit":
            for name in self._compile:
                self._network(name).compile()

    def on_fit_start(self) -> None:
        """Check the data, look up optimizers by name, and start the EMA."""
        self._check_pairs()
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        schedulers = self.lr_schedulers() or []
        schedulers = schedulers if isinstance(schedulers, list) else [schedulers]
        by_optimizer = {id(scheduler.optimizer): scheduler for scheduler in schedulers}
        self._stepped = {
            name: _Stepped(optimizer, by_optimizer.get(id(optimizer.optimizer)))
            for name, optimizer in zip(self._optimizer_factories, optimizers, strict=True)
        }
        self._network_parameters = {name: list(network.parameters()) for name, network in self.networks().items()}
        if self._ema_settings and self._ema is None:
            self._ema = self._make_ema(**self._ema_settings)
        if self._ema is not None and self._ema_state is not None:
            self._ema.load_state_dict(self._ema_state)
            self._ema_state = None

    def on_train_end(self) -> None:
        """Log what was recorded since the last log entry."""
        self.flush_log()

    def _make_ema(self, networks: Iterable[str] = (), decay: float = 0.999, **unknown: Any) -> Ema:
        if unknown or not networks:
            raise AnimegenError(f"model.ema has the keys networks (at least one) and decay, not {self._ema_settings}.")
        return Ema({name: self._network(name) for name in networks}, decay)

    def _check_pairs(self) -> None:
        """Check that photos and anime of a batch are pairs, if the model needs them."""
        train = getattr(getattr(self.trainer, "datamodule", None), "train", None)
        aligned = getattr(train, "aligned", None)
        if self.needs_pairs and aligned is not None and not any({"photo", "anime"} <= set(keys) for keys in aligned):
            raise AnimegenError(
                f"{type(self).__name__} is trained on pairs, but photos and anime of these data are from different"
                " scenes: use data=paired/toonworld, or data=paired/folders."
            )

    def _network_of(self, update: str) -> str:
        if update not in self._stepped:
            raise AnimegenError(
                f"The model yields the update '{update}', which has no optimizer;"
                f" add model.optimizers.{update}.{did_you_mean(update, self._stepped)}"
            )
        return self.trains.get(update, update)

    def _parameters_of(self, update: str) -> list[nn.Parameter]:
        return self._network_parameters[self._network_of(update)]

    def _network(self, name: str) -> nn.Module:
        network = getattr(self, name, None)
        if not isinstance(network, nn.Module):
            children = [child for child, _ in self.named_children()]
            raise AnimegenError(
                f"{type(self).__name__} has no network '{name}';"
                f" it has: {', '.join(children)}.{did_you_mean(name, children)}"
            )
        return network

    # --- validation, application and checkpoints ------------------------------------------------------

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int = 0) -> None:
        """Collect the metrics of one batch, computed with the averaged weights."""
        with self.ema_scope():
            super().validation_step(batch, batch_idx)

    def ema_scope(self) -> contextlib.AbstractContextManager:
        """Use the averaged weights inside the ``with`` block, if there are any."""
        return self._ema.scope() if self._ema is not None else contextlib.nullcontext()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Use the model as in application inside the ``with`` block: eval mode, averaged weights, no gradients."""
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            with torch.inference_mode(), self.ema_scope():
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the train step and the averages (see :mod:`animegen.engine.checkpoint` for the rest)."""
        state = checkpoint.setdefault("animegen", {})
        state.update(self.run_info)
        state["metrics"] = dict(self.shown)
        state["train_step"] = self.train_step
        state["optimizers"] = list(self._optimizer_factories)
        if self._ema is not None:
            state["ema"] = self._ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the train step and the averages."""
        state = checkpoint.get("animegen", {})
        names = state.get("optimizers")
        if names is not None and self._optimizer_factories and names != list(self._optimizer_factories):
            raise AnimegenError(
                f"The checkpoint was trained with the optimizers {names}, this run has"
                f" {list(self._optimizer_factories)}: resume with the same model configuration."
            )
        self.train_step = int(state.get("train_step", 0))
        self._ema_state = state.get("ema")


def check_schedule(schedule: Callable[..., Any], key: str) -> None:
    """Step a schedule once with an optimizer of its own.

    Raises:
        AnimegenError: if it cannot be stepped, such as one that needs a metric, or a period of 0 steps.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    tried = finish(schedule, key, optimizer)
    optimizer.step()
    try:
        tried.step()
    except Exception as error:
        reason = " ".join(str(error).split())
        raise AnimegenError(
            f"{key} cannot be stepped once per train step ({reason}): correct its settings, or use a schedule that"
            " needs no metric."
        ) from error


def _chunks(batch: dict[str, Tensor], count: int) -> list[tuple[dict[str, Tensor], int]]:
    """Cut all tensors of a batch into ``count`` pieces along the first axis; return pieces and their sizes."""
    size = len(next(iter(batch.values())))
    bounds = [round(size * i / count) for i in range(count + 1)]
    pairs = [(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    return [({name: value[a:b] for name, value in batch.items()}, b - a) for a, b in pairs]
