"""What a network is trained for: an Objective is a dict of named, weighted terms over a shared Context.

A model binds the tensors of one step to an objective::

    yield "generator", self.objectives["generator"](fake=fake, photo=batch["photo"], ...)

Nothing is computed by that call. The base module evaluates the bound objective once the right
network is unfrozen, so a term never leaves gradients where they do not belong.
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
        entries: tensors, or functions without arguments that are called at most once, when first
            read (so the discriminator is not run for an objective without an adversarial term).
            Functions read several entries at once by returning a dict; its keys become entries.
        plan: for each (extractor, entry) all layers that the terms of the objective will ask for,
            so that one pass of the extractor serves them all.
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
                raise AnimegenError(
                    "A loss term needs perceptual features, but the model has none: set model.features"
                    " (backbone and weights), or delete the term with ~model.objectives.<network>.<term>."
                )
            # A target needs no graph: it is a constant of the step.
            with torch.set_grad_enabled(torch.is_grad_enabled() and image.requires_grad):
                self._features[key] = network(image, self._plan.get(key, layers))
        return {layer: self._features[key][layer] for layer in layers}


class Term(nn.Module):
    """One named loss: the loss module, its weight, and the context entries that it reads.

    Args:
        loss: returns a scalar. If it has ``layers``, its arguments are features at these layers.
        weight: factor in the total. A term of weight 0 is never built (see :class:`Objective`).
        reads: argument name of ``loss.forward`` -> name of the context entry.
        start: ``train_step`` from which the term is active.
        ramp: number of steps over which the weight grows linearly from 0 after ``start``.
        every: the term is active only on every so many steps, counted from ``start``.
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
            raise AnimegenError(f"A loss term has every={every}: it must be at least 1, which means on every step.")

    @property
    def layers(self) -> Layers:
        """The feature layers that the loss reads; empty if it reads the entries themselves."""
        return tuple(getattr(self.loss, "layers", ()))

    @property
    def extractor(self) -> str:
        """Name of the context entry that holds the feature network."""
        return getattr(self.loss, "extractor", "features")

    def strength(self, step: int) -> float:
        """Return the share of the weight in force at ``step``: 0 before ``start`` and between turns, then up to 1."""
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
        #: Whether gradients of single terms will be asked for after :meth:`compute`.
        self.apart = False
        #: After :meth:`compute`: what is added up, by term. Where the gradient of a term takes a way of its own, only
        #: the gradient of its part is right, and only if ``apart`` was set.
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
                f"An objective has no active term at train step {self.objective.step}: give it a term with a weight"
                " other than 0 that starts no later."
            )
        self.parts = {name: self.objective.weight(name) * value for name, value in values.items()}
        weighted = list(self.parts.values())
        return sum(weighted[1:], start=weighted[0]), values


class Objective(nn.Module):
    """A dict of terms from the configuration.

    Args:
        terms: name -> ``{loss: {_target_: ...}, weight, reads, start, ramp, every}`` (or a ready
            :class:`Term`). ``None`` and terms of weight 0 are never built and cost nothing.

    The configuration node has ``_recursive_: false``, so that Hydra leaves the building to us and the losses of
    deleted terms are not built.
    ``step`` is set by the module before each step. ``factors`` holds what the influence
    calibration found (1 without it) and is saved in the checkpoint.
    """

    def __init__(self, **terms: Term | dict[str, Any] | None) -> None:
        super().__init__()
        self.step = 0
        #: Entries that every step has; the module puts its feature network here.
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
        """Return the names of the terms that count at the present step."""
        return [name for name in self.terms if self.term(name).strength(self.step) > 0]

    def weight(self, name: str) -> float:
        """Return the weight of a term in force at the present step."""
        term = self.term(name)
        return term.weight * self.factors[name] * term.strength(self.step)

    def reads(self, entry: str) -> bool:
        """Tell whether an active term reads the context entry ``entry``."""
        return any(entry in self.term(name).reads.values() for name in self.active())

    def plan(self, active: list[str]) -> dict[tuple[str, str], Layers]:
        """Return for each (extractor, entry) the union of layers that the active terms ask for."""
        plan: dict[tuple[str, str], Layers] = {}
        for name in active:
            term = self.term(name)
            for entry in term.reads.values() if term.layers else ():
                key = (term.extractor, entry)
                plan[key] = tuple(dict.fromkeys(plan.get(key, ()) + term.layers))
        return plan

    def forward(self, **entries: Tensor | Callable[[], Any] | Any) -> Evaluation:
        """Bind the values of one step; nothing is computed yet."""
        return Evaluation(self, {**self.shared, **entries})

    def get_extra_state(self) -> dict[str, float]:
        """Return the calibration factors for the checkpoint."""
        return dict(self.factors)

    def set_extra_state(self, state: dict[str, float]) -> None:
        """Take over the calibration factors of terms that exist here."""
        self.factors.update({name: float(value) for name, value in state.items() if name in self.factors})


class Objectives(nn.ModuleDict):
    """The objectives of a model by update name; one that is missing is explained."""

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
