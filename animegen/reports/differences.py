"""In what configurations differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Keys of the configuration that say where and how fast a run computes, or on what it is scored, not what it learns.
CIRCUMSTANCES = frozenset({"output", "runs", "resume", "overwrite", "threads", "device", "benchmark"})


def differences(configs: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """Return the dotted keys in which configurations differ, ``{key: {name: value}}``; absent values are left out.

    A branch that some do not have is one entry, not one for each of its leaves.
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
