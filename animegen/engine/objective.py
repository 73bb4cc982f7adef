"""Objectives: named, weighted loss terms over a shared context.

A model binds the tensors of one step to an objective::

    yield "generator", self.objectives["generator"](fake=fake, photo=batch["photo"], ...)

This call computes nothing. :class:`~animegen.engine.updater.Updater` evaluates the bound objective while only the
trained network has gradients enabled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, ItemsView, Mapping, ValuesView
from typing import Any, cast

import torch
from torch import Tensor, nn

from animegen.config.instantiate import build
from animegen.errors import AnimegenError, did_you_mean

Layers = tuple[str, ...]


class Context:
    """The named values of one step that loss terms read.

    Args:
        entries: tensors, or functions without arguments that are called at most once, on first access: the
            discriminator is not run for an objective without an adversarial term. A function can return a dict of
            several entries.
        plan: for each (extractor, entry) all layers that the terms of the objective read, so that the extractor runs
            once.
    """

    def __init__(self, entries: Mapping[str, Any], plan: Mapping[tuple[str, str], Layers] | None = None) -> None:
        self._entries = dict(entries)
        self._plan = plan or {}
        self._features: dict[tuple[str, str], dict[str, Tensor]] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise AnimegenError(
                f"A loss term reads '{name}', which this model does not provide;"
                f" it provides: {known}.{did_you_mean(name, self._entries)}"
            )
        value = self._entries[name]
        if callable(value) and not isinstance(value, nn.Module):
            value = value()
            if isinstance(value, dict):
                self._entries.update(value)
                value = value[name]
            self._entries[name] = value
        return value

    def features(self, name: str, layers: Layers, extractor: str = "features") -> dict[str, Tensor]:
        """Return ``{layer: (B,C,h,w)}`` of entry ``name``, computed once for all terms that read it."""
        key = (extractor, name)
        if key not in self._features:
            image = self[name]
            network = self[extractor]
            if network is None:
                raise AnimegenError(f"it needs perceptual features, but the model has none: {FEATURES}.")
            # A target needs no graph.
            with torch.set_grad_enabled(torch.is_grad_enabled() and image.requires_grad):
                self._features[key] = network(image, self._plan.get(key, layers))
        return {layer: self._features[key][layer] for layer in layers}


#: Where perceptual features come from.
FEATURES = (
    "set features=vgg19 or features=squeezenet1_1 (torchvision's weights, downloaded once, or features.weights=<file>),"
    " or features=random, which is for tests"
)


class Term(nn.Module):
    """A loss module with its weight, its schedule, and the context entries that it reads.

    Args:
        loss: module that returns a scalar. If it has ``layers``, its arguments are features at these layers.
        weight: weight in the total. A term of weight 0 is never built (see :class:`Objective`).
        reads: argument of ``loss.forward`` -> name of the context entry.
        start: ``train_step`` from which the term is active.
        ramp: number of steps after ``start`` in which the weight increases linearly from 0.
        every: interval in steps, counted from ``start``, at which the term is active.

    Raises:
        AnimegenError: if ``every`` is not positive.
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float = 1.0,
        reads: dict[str, str] | None = None,
        start: int = 0,
        ramp: int = 0,
        every: int = 1,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.weight = float(weight)
        self.reads = dict(reads or {})
        self.start = int(start)
        self.ramp = int(ramp)
        self.every = int(every)
        if self.every < 1:
            raise AnimegenError(f"A loss term has every={every}: it must be at least 1.")

    @property
    def layers(self) -> Layers:
        """Feature layers that the loss reads; empty for a loss on the entries themselves."""
        return tuple(getattr(self.loss, "layers", ()))

    @property
    def extractor(self) -> str:
        """Name of the context entry that holds the feature network."""
        return getattr(self.loss, "extractor", "features")

    @property
    def needs_features(self) -> bool:
        """Whether the loss reads the feature network of the model."""
        return (bool(self.layers) and self.extractor == "features") or "features" in self.reads.values()

    def strength(self, step: int) -> float:
        """Return the fraction of the weight at ``step``: 0 before ``start`` and between intervals, else up to 1."""
        if step < self.start or (step - self.start) % self.every:
            return 0.0
        return 1.0 if self.ramp == 0 else min(1.0, (step - self.start + 1) / self.ramp)

    def forward(self, context: Context) -> Tensor:
        """Return the raw, unweighted loss."""
        if self.layers:
            arguments: dict[str, Any] = {
                argument: context.features(entry, self.layers, self.extractor) for argument, entry in self.reads.items()
            }
        else:
            arguments = {argument: context[entry] for argument, entry in self.reads.items()}
        return self.loss(**arguments)


class Evaluation:
    """An objective bound to the values of one step; :meth:`compute` runs it."""

    def __init__(self, objective: Objective, entries: Mapping[str, Any]) -> None:
        self.objective = objective
        self.entries = entries
        #: Whether the gradients of single terms are needed after :meth:`compute`.
        self.apart = False
        #: Weighted terms, set by :meth:`compute`. With ``apart`` their gradients are those of the terms, even in
        #: subclasses that compute the gradient of the total in another way; the values may differ there.
        self.parts: dict[str, Tensor] = {}

    def compute(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted total and the raw value of each active term."""
        active = self.objective.active()
        context = Context(self.entries, plan=self.objective.plan(active))
        values = {}
        for name in active:
            try:
                values[name] = self.objective.term(name)(context)
            except AnimegenError as error:
                raise AnimegenError(f"The loss term '{name}': {error}") from error
        if not values:
            raise AnimegenError(
                f"An objective has no active term at train step {self.objective.step}: it needs a term with a weight"
                " other than 0 that has started."
            )
        self.parts = {name: self.objective.weight(name) * value for name, value in values.items()}
        weighted = list(self.parts.values())
        return sum(weighted[1:], start=weighted[0]), values


class Objective(nn.Module):
    """A weighted sum of loss terms from the configuration.

    The configuration node has ``_recursive_: false``, so that Hydra does not build the losses of deleted terms. The
    module sets ``step`` before each step. ``factors`` are the results of the influence calibration, 1 without it, and
    are saved in checkpoints.

    Args:
        **terms: name -> ``{loss: {_target_: ...}, weight, reads, start, ramp, every}``, or a :class:`Term`. ``None``
            and terms of weight 0 are not built.
    """

    def __init__(self, **terms: Term | dict[str, Any] | None) -> None:
        super().__init__()
        self.step = 0
        #: Context entries of all steps; the module adds its feature network.
        self.shared: dict[str, Any] = {}
        self.terms = nn.ModuleDict()
        for name, term in terms.items():
            built = _build(name, term)
            if built is not None:
                self.terms[name] = built
        self.factors: dict[str, float] = dict.fromkeys(self.terms, 1.0)

    def term(self, name: str) -> Term:
        """Return the term of that name."""
        return cast(Term, self.terms[name])

    def active(self) -> list[str]:
        """Return the names of the terms that are active in the current step."""
        return [name for name in self.terms if self.term(name).strength(self.step) > 0]

    def weight(self, name: str) -> float:
        """Return the weight of a term in the current step."""
        term = self.term(name)
        return term.weight * self.factors[name] * term.strength(self.step)

    def reads(self, entry: str) -> bool:
        """Return whether an active term reads a context entry."""
        return any(entry in self.term(name).reads.values() for name in self.active())

    def plan(self, active: list[str]) -> dict[tuple[str, str], Layers]:
        """Return for each (extractor, entry) the union of the layers that the active terms read."""
        plan: dict[tuple[str, str], Layers] = {}
        for name in active:
            term = self.term(name)
            for entry in term.reads.values() if term.layers else ():
                key = (term.extractor, entry)
                plan[key] = tuple(dict.fromkeys(plan.get(key, ()) + term.layers))
        return plan

    def forward(self, **entries: Tensor | Callable[[], Any] | Any) -> Evaluation:
        """Bind the values of one step; evaluated by :meth:`Evaluation.compute`."""
        return Evaluation(self, {**self.shared, **entries})

    def get_extra_state(self) -> dict[str, float]:
        """Return the calibration factors for the checkpoint."""
        return dict(self.factors)

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Restore the calibration factors of existing terms."""
        self.factors.update({name: float(value) for name, value in state.items() if name in self.factors})


class Objectives(nn.ModuleDict):
    """The objectives of a model by update name."""

    def __getitem__(self, name: str) -> Objective:
        """Return the objective of an update.

        Raises:
            AnimegenError: if the configuration has none of that name.
        """
        if name not in self:
            known = ", ".join(self) or "none"
            raise AnimegenError(
                f"The model needs the objective '{name}', but the configuration has {known}:"
                f" add model.objectives.{name}.{did_you_mean(name, self)}"
            )
        return cast(Objective, super().__getitem__(name))

    def check_features(self) -> None:
        """Check that models without a feature network have no term that reads one.

        Raises:
            AnimegenError: names the terms.
        """
        blind = {update: objective for update, objective in self.items() if objective.shared.get("features") is None}
        found = [
            f"{update}.{name}"
            for update, objective in blind.items()
            for name in objective.terms
            if objective.term(name).needs_features
        ]
        if found:
            raise AnimegenError(
                f"The loss terms {', '.join(found)} need perceptual features, but the model has none: {FEATURES};"
                f" or leave the terms out, as in model.objectives.{found[0]}=null."
            )

    def items(self) -> ItemsView[str, Objective]:
        """Return (update name, objective) pairs."""
        return cast("ItemsView[str, Objective]", super().items())

    def values(self) -> ValuesView[Objective]:
        """Return the objectives."""
        return cast("ValuesView[Objective]", super().values())


def _build(name: str, term: Term | dict[str, Any] | None) -> Term | None:
    if term is None:
        return None
    if isinstance(term, Term):
        return term if term.weight != 0 else None
    settings = dict(term)
    keys = ("loss", "weight", "reads", "start", "ramp", "every")
    unknown = set(settings) - set(keys)
    if unknown:
        word = sorted(unknown)[0]
        raise AnimegenError(
            f"The loss term '{name}' has an unknown key '{word}'; a term has {', '.join(keys)}."
            + did_you_mean(word, keys)
        )
    if float(settings.get("weight", 1.0)) == 0:
        return None
    if settings.get("loss") is None:
        raise AnimegenError(
            f"The loss term '{name}' has no loss: give it 'loss: {{_target_: animegen.losses.<name>}}'."
        )
    if not isinstance(settings["loss"], nn.Module):
        settings["loss"] = build(settings["loss"], f"the loss of the term '{name}'")
    built = Term(**settings)
    arguments = inspect.signature(built.loss.forward).parameters.values()
    needed = [a.name for a in arguments if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD]
    wrong = [a for a in built.reads if a not in {argument.name for argument in arguments}]
    if wrong or not set(needed) <= set(built.reads):
        raise AnimegenError(
            f"The loss term '{name}' must say what {type(built.loss).__name__} reads:"
            f" 'reads: {{{', '.join(f'{argument}: <entry>' for argument in needed)}}}', not {built.reads}."
        )
    return built
