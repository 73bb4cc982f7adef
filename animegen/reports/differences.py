"""Differences between configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Keys of the configuration that affect where a run computes, its speed and its scores, but not its training.
CIRCUMSTANCES = frozenset({"output", "runs", "resume", "overwrite", "threads", "device", "benchmark", "trust"})


@dataclass(frozen=True)
class Differences:
    """Differences between the configurations of runs of one model.

    Attributes:
        names: the runs.
        changed: the keys that all of them have, ``{key: {name: value}}``.
        partial: the keys that some of them lack.
    """

    names: list[str]
    changed: dict[str, dict[str, Any]]
    partial: dict[str, dict[str, Any]]


def by_model(configs: Mapping[str, Mapping[str, Any]]) -> list[Differences]:
    """Compare the configurations of the same model with one another; different models are not compared.

    Args:
        configs: the configurations by the name of the run; ``model._target_`` identifies the model.

    Returns:
        An entry for each model with several configurations that differ.
    """
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for name, config in configs.items():
        model = config.get("model")
        groups.setdefault(str(model.get("_target_")) if isinstance(model, dict) else "", {})[name] = config
    found = []
    for group in groups.values():
        keys = differences(group)
        changed = {key: values for key, values in keys.items() if len(values) == len(group)}
        partial = {key: values for key, values in keys.items() if key not in changed}
        if len(group) > 1 and keys:
            found.append(Differences(list(group), changed, partial))
    return found


def differences(configs: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the dotted keys in which configurations differ, ``{key: {name: value}}``; absent values are omitted.

    A branch that some lack is one entry.
    """
    names = list(configs)
    found: dict[str, dict[str, Any]] = {}
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    for key in keys:
        values = {name: configs[name][key] for name in names if key in configs[name]}
        if len(values) == len(names) and all(isinstance(value, dict) for value in values.values()):
            found.update(differences(values, f"{prefix}{key}."))
        elif len(values) < len(names) or any(value != values[names[0]] for value in values.values()):
            found[f"{prefix}{key}"] = values
    return found
