"""Reject ablations that do not fit an experiment or do not change its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, get_type_hints

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from animegen.config.ablations import chosen_ablations, expand
from animegen.config.compose import register
from animegen.config.composing import compose_words
from animegen.config.groups import list_groups, list_options
from animegen.config.instantiate import locate
from animegen.errors import AnimegenError

#: Settings of models and loss terms that are dicts without a ``_target_``.
_PLAIN = ("ema", "clip", "reads")


def check_ablations(overrides: Sequence[str]) -> None:
    """Reject an ablation that changes nothing in the composed configuration, or sets keys that it does not have.

    Args:
        overrides: arguments of ``animegen train``.

    Raises:
        AnimegenError: if one does not fit; the message lists experiments of its family that it fits.
    """
    chosen = chosen_ablations(overrides)
    for ablation in chosen:
        others = [name for name in chosen if name != ablation]
        if not _fits(ablation, others, overrides):
            experiment = next((w for w in reversed(overrides) if w.startswith(("experiment=", "model="))), "this model")
            good = ", ".join(fitting(ablation)) or "none"
            raise AnimegenError(
                f"ablation={ablation} does not fit {experiment}, which lacks the keys that it changes or has the same"
                f" values: choose another ablation, or an experiment that it fits: {good}."
            )


def fitting(ablation: str) -> list[str]:
    """Return the experiments of an ablation's family that it fits."""
    family = ablation.split("/")[0]
    names = [option.removeprefix("experiment/") for option in list_options()]
    return [name for name in names if name.startswith(f"{family}/") and fits(ablation, name)]


def fits(ablation: str, experiment: str) -> bool:
    """Return whether an ablation changes an experiment, and sets only keys that the experiment has."""
    return _fits(ablation, [], [f"experiment={experiment}"])


def _fits(ablation: str, others: Sequence[str], overrides: Sequence[str]) -> bool:
    # Group choices only: single values on the command line may undo an ablation.
    groups = [group for group in list_groups() if group != "ablation"]
    words = [word for word in overrides if word.partition("=")[0] in groups]
    before = _composed((*words, f"ablation=[{','.join(others)}]") if others else tuple(words))
    after = _composed((*words, f"ablation=[{','.join([*others, ablation])}]"))
    if before is None or after is None or after == before or list(_out_of_place(before, after)):
        return False
    # A model without optimizers is not trained, so that changes of its training have no effect.
    return "optimizers" in before["model"] or before["model"] == after["model"]


@lru_cache(maxsize=256)
def _composed(words: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the resolved configuration without null, empty and default values, and without the names of ablations."""
    try:
        register()
        config, _ = compose_words("train", expand(words), explained=False)
        OmegaConf.set_struct(config, False)
        for key in config.data or ():
            if OmegaConf.is_missing(config.data, key):  # a placeholder for a required value
                config.data[key] = "given"
        values: Any = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    except (AnimegenError, HydraException, OmegaConfBaseException):
        return None
    values["ablations"] = None
    return _pruned(values)


def _pruned(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    kept = {key: _pruned(value) for key, value in node.items()}
    known = _parameters(node.get("_target_"))[0]
    return {
        key: value
        for key, value in kept.items()
        if value is not None and value != {} and not (key in known and known[key].default == value)
    }


def _out_of_place(before: Any, after: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the keys added by an ablation that have no effect: unknown settings, and parts of missing nodes."""
    before = before if isinstance(before, dict) else {}
    target = after.get("_target_")
    another = target != before.get("_target_")
    for key, value in after.items():
        here = f"{path}.{key}" if path else str(key)
        added = key not in before
        asked = added or another or (isinstance(value, dict) and value != before[key])
        if target and asked and not _takes(target, key, value):
            yield here
        if isinstance(value, dict):
            part = path.split(".")[0] == "model" and key not in _PLAIN
            # Loss terms alone are not a complete objective.
            whole = _whole(value) and not (path == "model.objectives" and "_target_" not in value)
            if part and not isinstance(before.get(key), dict) and not whole:
                yield here
            yield from _out_of_place(before.get(key), value, here)


def _whole(node: dict[str, Any]) -> bool:
    """Return whether a node is complete: it names its ``_target_``, is a whole loss term, or holds such nodes."""
    if "_target_" in node:
        return True
    if {"loss", "reads", "weight"} & set(node):
        return "_target_" in node.get("loss", {}) and "reads" in node
    return bool(node) and all(isinstance(value, dict) and _whole(value) for value in node.values())


def _takes(target: str, key: str, value: Any) -> bool:
    """Return whether ``_target_`` has a setting ``key``, of the type of ``value`` if that is an object."""
    known, more = _parameters(target)
    if key.startswith("_") or not (known or more):
        return True
    made = locate(value["_target_"]) if isinstance(value, dict) and "_target_" in value else None
    wanted = _annotations(target).get(key)
    if inspect.isclass(made) and inspect.isclass(wanted) and wanted is not Any and not issubclass(made, wanted):
        return False
    return more or key in known


@lru_cache
def _parameters(target: str | None) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return the parameters of a class (with its bases) or function, and whether it accepts any others."""
    called = locate(target) if target else None
    if called is None:
        return {}, False
    functions = [called]
    if inspect.isclass(called):
        functions = [vars(base)["__init__"] for base in inspect.getmro(called)[:-1] if "__init__" in vars(base)]
    known: dict[str, inspect.Parameter] = {}
    for function in functions:
        parameters = inspect.signature(function).parameters
        known = {**parameters, **known}
        others = [name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD]
        if others != ["settings"]:  # which are those of the base class
            return known, bool(others)
    return known, True


@lru_cache
def _annotations(target: str) -> dict[str, Any]:
    """Return the types that a class declares for its attributes."""
    try:
        return get_type_hints(locate(target))
    except (TypeError, NameError):  # no class, or one whose annotations are for type checkers alone
        return {}
