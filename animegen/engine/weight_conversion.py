"""Weights of other projects: reading them as data, recognising whose they are, giving them our names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.nn.weight_files import checked_state, load_data

State = dict[str, Tensor]

#: Under these keys training scripts keep a state dict, in the order in which they are tried.
CONTAINERS = ("state_dict", "model_state_dict", "generator", "model")
#: Put before all names by DataParallel, torch.compile, and modules that hold the generator as an attribute.
PREFIXES = ("module.", "_orig_mod.", "generator.", "model.")
_SHOWN = 3
_LEVELS = 8  # of containers in each other


@dataclass(frozen=True)
class Importer:
    """How to take over the generators of one project.

    A family offers its importers as the tuple ``IMPORTERS`` in ``animegen.models.<family>.weight_conversion``.
    """

    #: What ``format=`` calls it.
    name: str
    #: One line: whose weights.
    about: str
    #: Their module -> the module of our network; ``.weight`` and ``.bias`` keep their names.
    modules: Mapping[str, str]
    #: Returns the overrides of ``animegen train`` that choose a model which computes the same, given their state dict.
    overrides: Callable[[Mapping[str, Tensor]], list[str]]
    #: The attribute of our model that is their network.
    network: str = "generator"

    def rename(self, key: str) -> str | None:
        """Return our name of one of their tensors, or ``None`` if there is none."""
        module, _, leaf = key.rpartition(".")
        return f"{self.modules[module]}.{leaf}" if module in self.modules else None


def read_state(path: Path) -> State:
    """Read a state dict, without running code from the file and without the containers around it.

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
        f"'{path}' holds no state dict, neither by itself nor under {', '.join(CONTAINERS)}: in the other project save"
        " the generator's state_dict()."
    )


def _without_prefixes(state: State) -> State:
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def choose_importer(state: Mapping[str, Tensor], importers: Iterable[Importer], format_: str, path: Path) -> Importer:
    """Return the importer called ``format_``, or for ``auto`` the one whose names the state dict has.

    Raises:
        AnimegenError: if there is none.
    """
    known = {importer.name: importer for importer in importers}
    if format_ != "auto":
        if format_ not in known:
            raise AnimegenError(f"format={format_} is not possible: use auto, or one of {', '.join(known)}.")
        return known[format_]
    mine = {name: sum(i.rename(key) is not None for key in state) / len(state) for name, i in known.items()}
    best = max(mine, key=lambda name: mine[name])
    # Half of the names at least: then the rest can be named as what is wrong with the file.
    if mine[best] < 0.5:
        raise AnimegenError(
            f"'{path}' is of no project that animegen can import ({', '.join(known)}): its weights are called"
            f" {_some(list(state))}."
        )
    return known[best]


def translate(state: Mapping[str, Tensor], importer: Importer, shapes: Mapping[str, torch.Size], path: Path) -> State:
    """Give weights our names; every tensor has to be used, every one of ours filled, all shapes have to fit.

    Args:
        state: their state dict.
        importer: of their project.
        shapes: name -> shape of all tensors of our network.
        path: of their file, for messages.

    Raises:
        AnimegenError: with what is missing, unknown and misshapen.
    """
    theirs = {
        f"{our}.{leaf}": f"{their}.{leaf}" for their, our in importer.modules.items() for leaf in ("weight", "bias")
    }
    ours = {key: importer.rename(key) for key in state}
    unknown = [key for key, name in ours.items() if name not in shapes]
    filled = {name: state[key] for key, name in ours.items() if name is not None and name in shapes}
    missing = [theirs.get(name, name) for name in shapes if name not in filled]
    misshapen = [
        f"{theirs[name]} ({_size(value.shape)} instead of {_size(shapes[name])})"
        for name, value in filled.items()
        if value.shape != shapes[name]
    ]
    faults = [
        f"{len(keys)} tensor{'s' if len(keys) > 1 else ''} {what}: {_some(keys)}"
        for what, keys in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
        if keys
    ]
    if faults:
        raise AnimegenError(f"'{path}' is no complete generator of {importer.name}; {'; '.join(faults)}.")
    spoilt = [theirs[name] for name, value in filled.items() if not torch.isfinite(value).all()]
    if spoilt:
        raise AnimegenError(f"'{path}' holds values that are not finite in {_some(spoilt)}: use an earlier checkpoint.")
    return {name: value.float() for name, value in filled.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _size(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
