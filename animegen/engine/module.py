"""AnimeModule, the base of all models: a plain ``nn.Module`` that defines how it is trained, and does not train."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from animegen.engine.ema import Ema
from animegen.engine.environment import Environment
from animegen.engine.objective import Evaluation, Objective, Objectives
from animegen.engine.settings import TrainingSettings
from animegen.engine.step_log import StepLog
from animegen.errors import AnimegenError, did_you_mean

Updates = Iterator[tuple[str, Evaluation]]
"""Pairs of the name of an update and its bound objective."""


class AnimeModule(nn.Module):
    """A model: networks, and the updates of a train step.

    A subclass creates its networks as attributes and defines :meth:`updates`, a generator::

        def updates(self, batch):
            fake = self.generator(batch["photo"])
            yield "discriminator", self.objectives["discriminator"](fake=fake.detach(), ...)
            yield "generator", self.objectives["generator"](fake=fake, ...)

    :class:`~animegen.engine.lightning.LightningAdapter` trains it with PyTorch Lightning,
    ``Trainer().fit(LightningAdapter(model), ...)``. After each ``yield`` it evaluates the bound objective with all
    other networks frozen, computes gradients, clips them, steps the optimizer of that name and its schedule, and
    resumes the generator. It also updates the EMA, logs, and stops at the first value that is not finite.

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
    #: Arguments of the constructor that application does not need. They have defaults, with which looks are written.
    training_only: Sequence[str] = ()
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
        self.settings = TrainingSettings(
            optimizers=_given(optimizers),
            schedulers=_given(schedulers),
            ema=dict(ema) if ema else None,
            clip=clip,
            accumulate=accumulate,
            compile=list(compile or []),
            channels_last=channels_last,
            gradient_norms=gradient_norms,
        )
        self.features = features or None
        self.objectives = Objectives(_given(objectives))
        for objective in self.objectives.values():
            objective.shared["features"] = self.features
        #: Number of batches trained so far: saved in checkpoints, and the x-axis of all logs.
        self.train_step = 0
        #: Facts about the run for its checkpoints: version, config, choices.
        self.run_info: dict[str, Any] = {}
        #: Averaged weights; ``None`` before training and without ``ema``.
        self.ema: Ema | None = None
        #: The training that the model is part of.
        self.environment = Environment()
        #: Interval of log entries in train steps.
        self.log_every = 10
        #: Scalars since the last log entry.
        self.scalars = StepLog()

    # --- the interface of a model --------------------------------------------------------------

    def updates(self, batch: dict[str, Tensor]) -> Updates:
        """Yield ``(update name, bound objective)`` in the order of the updates of one step."""
        raise NotImplementedError(f"{type(self).__name__} has to define updates(batch)")

    def preview(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return named images ``(B,3,H,W)`` or clips ``(B,T,3,H,W)`` in [-1,1], in display order."""
        return {name: value for name, value in batch.items() if value.ndim >= 4}

    def validate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return named metrics (scalars, or one value per sample) of one validation batch."""
        return {}

    def load_pretrained(self) -> None:
        """Load pretrained weights before training; a resumed run replaces them by those of its checkpoint."""

    def start_training(self, environment: Environment) -> None:
        """Check the data and start the EMA; called when all weights are loaded.

        Raises:
            AnimegenError: if data or settings do not fit the model.
        """
        self.environment = environment
        self._check_pairs(getattr(environment.data, "train", None))
        if self.settings.ema and self.ema is None:
            self.ema = self._make_ema(**self.settings.ema)

    def start_step(self) -> None:
        """Prepare a train step; called before :meth:`updates`."""

    def record(self, name: str, value: Tensor) -> None:
        """Log a scalar tensor of the current step as ``train/<name>``."""
        self.scalars.set(f"train/{name}", value)

    # --- networks ------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return the trainable networks by name; by default those of the optimizers."""
        names = dict.fromkeys(self.trains.get(update, update) for update in self.settings.optimizers)
        return {name: self.network(name) for name in names}

    def network(self, name: str) -> nn.Module:
        """Return the network of that name.

        Raises:
            AnimegenError: if there is none.
        """
        network = getattr(self, name, None)
        if not isinstance(network, nn.Module):
            children = [child for child, _ in self.named_children()]
            raise AnimegenError(
                f"{type(self).__name__} has no network '{name}';"
                f" it has: {', '.join(children)}.{did_you_mean(name, children)}"
            )
        return network

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(itertools.chain(self.parameters(), self.buffers()), torch.empty(0)).device

    # --- application ---------------------------------------------------------------------------

    def ema_scope(self) -> contextlib.AbstractContextManager:
        """Use the averaged weights inside the ``with`` block, if there are any."""
        return self.ema.scope() if self.ema is not None else contextlib.nullcontext()

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

    def _make_ema(self, networks: Iterable[str] = (), decay: float = 0.999, **unknown: Any) -> Ema:
        if unknown or not networks:
            raise AnimegenError(f"model.ema has the keys networks (at least one) and decay, not {self.settings.ema}.")
        return Ema({name: self.network(name) for name in networks}, decay)

    def _check_pairs(self, train: Any) -> None:
        """Check that photos and anime of a batch are pairs, if the model needs them."""
        aligned = getattr(train, "aligned", None)
        if self.needs_pairs and aligned is not None and not any({"photo", "anime"} <= set(keys) for keys in aligned):
            raise AnimegenError(
                f"{type(self).__name__} is trained on pairs, but photos and anime of these data are from different"
                " scenes: use data=paired/toonworld, or data=paired/folders."
            )


def _given(parts: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: part for name, part in (parts or {}).items() if part is not None}
