"""Configuration groups: their options, and the ablations of the catalogues.

A catalogue ``conf/ablation/<family>.yaml`` maps names to lists of overrides; the comment after a name is its
description. The ablation ``<family>/<name>`` is chosen like an option of a group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from animegen.config.sources import config_root
from animegen.errors import AnimegenError

CONFIG_MODULE = "animegen.conf"
_CATALOGUES = "ablation"

#: Reads plain YAML. The parser in C, where PyYAML has it, takes a tenth of the time.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Ablation:
    """A named change of a configuration.

    Attributes:
        name: unique name, ``<family>/<name>`` in a catalogue.
        overrides: its overrides.
        description: one sentence.
    """

    name: str
    overrides: tuple[str, ...]
    description: str = ""


@lru_cache
def list_options() -> list[str]:
    """Return every option of every configuration group, e.g. ``model/animegan/v2`` or ``ablation/animegan/no_tv``."""
    root = config_root()
    files = (path.relative_to(root).with_suffix("") for path in sorted(root.rglob("*.yaml")))
    options = [path.as_posix() for path in files if len(path.parts) > 1 and not path.name.startswith("_")]
    options = [option for option in options if option.split("/")[0] != _CATALOGUES]
    return sorted([*options, f"{_CATALOGUES}/none", *(f"{_CATALOGUES}/{name}" for name in list_ablations())])


@lru_cache
def list_groups() -> list[str]:
    """Return the names of the configuration groups."""
    return sorted({option.split("/")[0] for option in list_options()})


@lru_cache
def list_ablations() -> dict[str, Ablation]:
    """Return the ablations of all catalogues by name."""
    found = {}
    for path in sorted((config_root() / _CATALOGUES).glob("*.yaml")):
        for ablation in read_catalogue(path):
            found[ablation.name] = ablation
    return found


def read_catalogue(path: Path) -> list[Ablation]:
    """Return the ablations of a catalogue in the order of the file.

    Raises:
        AnimegenError: if the file is not YAML, names an ablation twice, or gives anything but a list of overrides.
    """
    text = path.read_text("utf-8")
    try:
        node = yaml.compose(text, Loader=LOADER)
        overrides = read_changes(yaml.load(text, Loader=LOADER) or {}, f"'{path}'")
    except yaml.YAMLError as error:
        raise AnimegenError(f"'{path}' is not valid YAML: {' '.join(str(error).split())}") from error
    lines = text.splitlines()
    found: dict[str, Ablation] = {}
    for key, value in node.value if node is not None else ():
        # The comment follows the list, or the name if the list is on separate lines.
        same_line = value.start_mark.line == key.start_mark.line
        mark = value.end_mark if same_line else key.end_mark
        comment = lines[mark.line][mark.column :].partition("#")[2].strip()
        name = f"{path.stem}/{key.value}"
        if name in found:
            raise AnimegenError(f"'{path}' names the ablation '{key.value}' twice: rename one.")
        found[name] = Ablation(name, overrides[key.value], comment)
    return list(found.values())


def read_changes(changes: Mapping[str, object], where: str) -> dict[str, tuple[str, ...]]:
    """Return the overrides of named changes: the entries of a catalogue, or the ``variants`` of a study.

    Args:
        changes: name -> list of overrides.
        where: their origin, for messages.

    Raises:
        AnimegenError: for anything but lists of overrides of the form ``key=value``, ``+key=value`` or ``~key``.
    """
    read = {}
    for name, words in changes.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise AnimegenError(f"{where}: '{name}' must be a list of overrides such as [model.clip=1.0], got {words}.")
        for word in words:
            if not word.startswith("~") and not word.partition("=")[1]:
                raise AnimegenError(f"{where}: '{name}' holds '{word}', which is not of the form key=value.")
        read[str(name)] = tuple(words)
    return read
