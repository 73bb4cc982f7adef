"""Composition of configurations, and lists of their options."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import omegaconf.base
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from animegen.config import messages as mistakes
from animegen.config.ablations import KEY, expand, recorded
from animegen.config.composing import compose_words
from animegen.config.groups import list_groups, list_options
from animegen.config.options import keys_of
from animegen.config.ranges import check_numbers
from animegen.config.schema import SCHEMAS, check_values, path_keys, register_schemas, schema_keys
from animegen.config.values import refusal
from animegen.errors import AnimegenError
from animegen.files import shown


@cache
def register() -> None:
    """Make our schemas and resolvers known to Hydra."""
    register_schemas()
    _remember_parsed()
    OmegaConf.register_new_resolver("run_dir", run_dir, replace=True)
    OmegaConf.register_new_resolver("recorded_ablations", recorded, replace=True)
    OmegaConf.register_new_resolver("mul", _product, replace=True)
    OmegaConf.register_new_resolver("torchrun", _torchrun, replace=True)
    OmegaConf.register_new_resolver("share", lambda part, whole: round(part * whole), replace=True)
    OmegaConf.register_new_resolver("minus", lambda a, b: a - b, replace=True)


def _remember_parsed() -> None:
    """Let OmegaConf parse each text with ``${...}`` once, and not each time that it is resolved.

    A run resolves two dozen such texts 500 times, and to parse one takes half a millisecond.
    """
    parse = omegaconf.base.parse
    if not hasattr(parse, "cache_info"):
        vars(omegaconf.base)["parse"] = lru_cache(maxsize=4096)(parse)


def _product(a: float, b: float) -> float:
    """Return a product of numbers (of a text and a number it would be a repetition, which may fill the memory)."""
    if not isinstance(a, int | float) or not isinstance(b, int | float):
        raise ValueError(f"mul takes two numbers, not {a} and {b}")
    product = a * b
    return int(product) if isinstance(product, float) and product.is_integer() else product


def _torchrun(what: str) -> Any:
    """Return how many ``devices`` (per machine) or ``nodes`` torchrun has started processes on."""
    here, all_ = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    if here is None or all_ is None:
        return "auto" if what == "devices" else 1
    return int(here) if what == "devices" else int(all_) // int(here)


def run_dir(
    output: str | None, resume: str | None, runs: str, experiment: str, model: str, ablations: Any, seed: int, end: Any
) -> str:
    """Return the folder of a run: the one named or resumed, else ``runs/<what>/<ablations>/seed<k>-<end>``.

    TensorBoard shows this path as the name of the run, so that it is short: without ablations there is no such part.
    """
    if output:
        return output
    if resume:
        return str(run_folder(resume))
    what = experiment if experiment != "none" else model
    changes = "+".join(sorted(name for name, on in (ablations or {}).items() if on))
    return str(Path(runs) / what / changes / f"seed{seed}-{end}")


#: Keys within configuration groups that name files and folders of the user.
DATA_PATHS = (
    *(f"data.{name}" for name in ("photos", "anime", "smooth_folder", "regions_folder", "root", "folder", "path")),
    *(f"data.{name}" for name in ("video", "videos", "anime_videos", "images")),
    *("features.weights", "benchmark.video"),
)
#: Further ones that need not exist.
CACHE_PATHS = ("data.cache", "data.video_cache")


def run_folder(path: str | Path) -> Path:
    """Return the run folder that a path means: the folder itself, or that of a checkpoint in it."""
    path = Path(path)
    return path.absolute().parent.parent if path.suffix == ".ckpt" else path


def compose_config(name: str, overrides: Sequence[str], complete: bool = True) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with command-line overrides; ``ablation=`` is expanded.

    Args:
        name: name of the configuration: ``train``, ``eval`` ...
        overrides: words of the command line.
        complete: insist on every value that the user has to give (``???``).

    Raises:
        AnimegenError: if an override is invalid, with the closest valid key or option.
    """
    return compose_choices(name, overrides, complete)[0]


def compose_choices(name: str, overrides: Sequence[str], complete: bool = True) -> tuple[DictConfig, dict[str, Any]]:
    """Return what :func:`compose_config` returns, and the chosen option of each configuration group."""
    register()
    mistakes.check_words(overrides, list_options())
    words = expand(overrides) if "ablations" in schema_keys(name) else list(overrides)
    try:
        config, choices = compose_words(name, words)
        if complete:
            check_complete(config, name)
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(explain(error, name, overrides)) from error
    return config, choices


def check_complete(config: DictConfig, name: str = "train") -> None:
    """Raise if a value that the user must give (``???``) is missing, or if a top-level key is unknown."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    missing = [key for key, value in _dotted(values) if value == "???"]
    if missing:
        raise AnimegenError(f"Missing on the command line: {' '.join(f'{key}=...' for key in missing)}")
    known = schema_keys(name)
    for key in config:
        if key not in known:
            raise AnimegenError(mistakes.no_key(str(key), known))
    check_groups(values)  # first, so that the error names the key of the user, not one that takes its value from it
    resolved: Any = OmegaConf.to_container(config, resolve=True)  # finds interpolations that lead nowhere
    check_values(name, resolved)
    check_groups(resolved)


def check_groups(values: Mapping[str, Any]) -> None:
    """Raise for a number below a top-level key that is outside of its range."""
    for group, node in values.items():
        if group != "ablations":  # names
            check_numbers(node, str(group))


def explain(error: BaseException, name: str, overrides: Sequence[str]) -> str:
    """Turn an error of Hydra or OmegaConf into one sentence with the closest valid key or option."""
    if sentence := wrong_value(error, name, overrides):
        return sentence
    groups = [group for group in list_groups() if group != KEY]
    try:
        # All that the group choices alone compose: the keys that the user can have meant.
        config, _ = compose_words(name, [word for word in overrides if word.split("=")[0] in groups])
        known = [key for key, _ in _dotted(OmegaConf.to_container(config, resolve=False))]
    except (HydraException, OmegaConfBaseException):  # the mistake is in a file
        known = schema_keys(name)
    sentence = mistakes.explain(error, overrides, list(dict.fromkeys([*known, *groups, KEY])), list_options())
    return f"{blamed} does not fit: {sentence}" if (blamed := _blamed_ablation(name, overrides)) else sentence


def _blamed_ablation(name: str, overrides: Sequence[str]) -> str:
    """Return the choice of ablations without which overrides compose, or an empty string."""
    chosen = [word for word in overrides if word.partition("=")[0] == KEY]
    if not chosen or "ablations" not in schema_keys(name):
        return ""
    try:
        compose_words(name, [word for word in overrides if word not in chosen])
    except (HydraException, OmegaConfBaseException):
        return ""
    return chosen[-1]


def wrong_value(error: BaseException, name: str, overrides: Sequence[str]) -> str | None:
    """Return the sentence about a top-level value of the wrong type, or ``None``."""
    place = re.search(r"full_key: (\S+)", f"{error} {error.__cause__ or ''}")
    words = dict(word.partition("=")[::2] for word in overrides)
    wrong = place[1] if place else None
    for key in keys_of(SCHEMAS[name]) if name in SCHEMAS else ():
        if key.name == wrong and key.name in words:
            return str(refusal(key.name, words[key.name], key.kind, key.declaration.limits))
    return None


def literal_paths(name: str, words: Sequence[str], but: Sequence[str] = ()) -> list[str]:
    """Return the words of a command with its paths quoted, so that Hydra takes every character of them literally.

    Args:
        name: name of the configuration.
        words: arguments of the command line.
        but: keys that are left as they are.

    Raises:
        AnimegenError: for a path with ``${``. OmegaConf would resolve it, and no file of a run may hold it.
    """
    keys = [key for key in (*path_keys(name), *DATA_PATHS, *CACHE_PATHS) if key not in but]
    pairs = [(word, *word.partition("=")[::2]) for word in words]
    for word, key, value in pairs:
        if key in path_keys(name) and "${" in value:
            raise AnimegenError(
                f"{word} holds '${{', as a variable of the shell does that is not replaced in single quotes: write the"
                " path out, or rename the folder."
            )
    return [
        f"{key}={quoted(_located(key, value))}" if key in keys and _is_text(key, value) else word
        for word, key, value in pairs
    ]


def _is_text(key: str, value: str) -> bool:
    """Tell whether the value of a path key is a path, and not an expression of Hydra's grammar."""
    marks = "'\"[{" if "." in key else "'\""
    return bool(value) and value[0] not in marks and value != "null" and "${" not in value


def _located(key: str, value: str) -> str:
    """Return a path with the home folder in place of ``~``; data that exist are recorded by their absolute path."""
    value = os.path.expanduser(value)
    return os.path.abspath(value) if key in DATA_PATHS and os.path.exists(value) else value


def swept_homes(word: str) -> str:
    """Return a word of a sweep with the home folder in place of the ``~`` that begins a value of a data key."""
    key, _, values = word.partition("=")
    if key not in (*DATA_PATHS, *CACHE_PATHS) or any(mark in values for mark in "'\"[{("):
        return word
    parts = (quoted(os.path.expanduser(part)) if part.startswith("~") else part for part in values.split(","))
    return f"{key}={','.join(parts)}"


def check_data_paths(config: Mapping[str, Any], source: str) -> None:
    """Check that recorded data are still where they were.

    Args:
        config: the node ``data``.
        source: what recorded it, for the message.

    Raises:
        AnimegenError: names the first key whose file or folder is missing.
    """
    for key in DATA_PATHS:
        group, _, name = key.partition(".")
        value = config.get(name) if group == "data" else None
        if isinstance(value, str) and value and not os.path.lexists(value):
            raise AnimegenError(
                f"{source} names the data {key}='{shown(value)}', which do not exist here: give"
                f" {key}=<where they are now>."
            )


def quoted(value: str | Path) -> str:
    """Return a text as Hydra's override grammar takes it literally."""
    return QuotedString(str(value), Quote.single).with_quotes()


def _dotted(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of nested dicts with their values, branches before leaves."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}", value
                yield from _dotted(value, f"{prefix}{key}.")


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a resolved configuration as plain dicts, lists and values, as checkpoints store it."""
    return OmegaConf.to_container(config, resolve=True, enum_to_str=True)  # type: ignore[return-value]
