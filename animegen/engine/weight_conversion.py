"""Conversion of the weights of other projects: reading, format detection, renaming."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.nn.weight_files import checked_state, load_data

State = dict[str, Tensor]

#: Keys under which training scripts store a state dict, in the order in which they are tried.
CONTAINERS = ("state_dict", "model_state_dict", "generator", "model")
#: Prefixes of all names from DataParallel, torch.compile, and modules with the generator as an attribute.
PREFIXES = ("module.", "_orig_mod.", "generator.", "model.")
_SHOWN = 3
_LEVELS = 8  # of containers in each other


@dataclass(frozen=True)
class WeightConversion:
    """Conversion of the generators of one project.

    A family lists its conversions in the tuple ``CONVERSIONS`` of ``animegen.models.<family>.weight_conversion``.
    """

    #: Name, the value of ``format=``.
    name: str
    #: One-line description.
    about: str
    #: Module in the file -> module of the network here; ``.weight`` and ``.bias`` keep their names.
    modules: Mapping[str, str]
    #: Maps the state dict to the overrides of ``animegen train`` that select an equivalent model.
    overrides: Callable[[Mapping[str, Tensor]], list[str]]
    #: Attribute of the model that is the converted network.
    network: str = "generator"

    def rename(self, key: str) -> str | None:
        """Return the name here of a tensor in the file, or ``None`` if it has none."""
        module, _, leaf = key.rpartition(".")
        return f"{self.modules[module]}.{leaf}" if module in self.modules else None


def read_state(path: Path) -> State:
    """Read a state dict, unwrapped from containers and prefixes; no code in the file is run.

    Raises:
        AnimegenError: if the file is missing or damaged, holds more than plain data, or no state dict.
    """
    if not path.is_file():
        raise AnimegenError(f"There is no file '{path}': source= names a .pt or .pth file with a generator's weights.")
    content = load_data(path, "plain weights", "in the other project save the generator's state_dict() alone")
    if isinstance(content, Mapping) and "animegen" in content:
        raise AnimegenError(f"'{path}' is a checkpoint of animegen already: use it as it is, with checkpoint={path}.")
    return _without_prefixes(_unwrapped(content, path))


def _unwrapped(content: object, path: Path) -> State:
    for _ in range(_LEVELS):
        if not isinstance(content, Mapping):
            break
        whole = bool(content) and all(isinstance(value, Tensor) for value in content.values())
        if whole and (state := checked_state(content, f"'{path}'")):
            return state
        inner = next((content[key] for key in CONTAINERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    raise AnimegenError(
        f"'{path}' holds no state dict, neither directly nor under {', '.join(CONTAINERS)}: in the other project save"
        " the generator's state_dict()."
    )


def _without_prefixes(state: State) -> State:
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def choose_conversion(
    state: Mapping[str, Tensor], conversions: Iterable[WeightConversion], format_: str, path: Path
) -> WeightConversion:
    """Return the conversion called ``format_``, or for ``auto`` the one that knows most names of the state dict.

    Raises:
        AnimegenError: if there is none.
    """
    known = {conversion.name: conversion for conversion in conversions}
    if format_ != "auto":
        if format_ not in known:
            raise AnimegenError(f"format={format_} is not possible: use auto, or one of {', '.join(known)}.")
        return known[format_]
    shares = {name: sum(c.rename(key) is not None for key in state) / len(state) for name, c in known.items()}
    best = max(shares, key=lambda name: shares[name])
    # If at least half of the names are known, the file is probably an incomplete one of that project.
    if shares[best] < 0.5:
        raise AnimegenError(
            f"'{path}' is not from a project that animegen can import ({', '.join(known)}): its weights are called"
            f" {_some(list(state))}."
        )
    return known[best]


def convert(
    state: Mapping[str, Tensor], conversion: WeightConversion, shapes: Mapping[str, torch.Size], path: Path
) -> State:
    """Rename the tensors of a state dict to those of a network; names and shapes have to match completely.

    Args:
        state: the state dict of the file.
        conversion: conversion of its project.
        shapes: name -> shape of all tensors of the network.
        path: path of the file, for messages.

    Raises:
        AnimegenError: if tensors are missing, unknown, of another shape, or not finite.
    """
    sources = {
        f"{target}.{leaf}": f"{source}.{leaf}"
        for source, target in conversion.modules.items()
        for leaf in ("weight", "bias")
    }
    targets = {key: conversion.rename(key) for key in state}
    unknown = [key for key, name in targets.items() if name not in shapes]
    filled = {name: state[key] for key, name in targets.items() if name is not None and name in shapes}
    missing = [sources.get(name, name) for name in shapes if name not in filled]
    misshapen = [
        f"{sources[name]} ({_size(value.shape)} instead of {_size(shapes[name])})"
        for name, value in filled.items()
        if value.shape != shapes[name]
    ]
    faults = [
        f"{len(keys)} tensor{'s' if len(keys) > 1 else ''} {what}: {_some(keys)}"
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if keys
    ]
    if faults:
        raise AnimegenError(f"'{path}' is not a complete generator of {conversion.name}; {'; '.join(faults)}.")
    not_finite = [sources[name] for name, value in filled.items() if not torch.isfinite(value).all()]
    if not_finite:
        raise AnimegenError(
            f"'{path}' holds values that are not finite in {_some(not_finite)}: use an earlier checkpoint."
        )
    return {name: value.float() for name, value in filled.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
