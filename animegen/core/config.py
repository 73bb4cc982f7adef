"""Composing configurations, and answering a mistake in them with the nearest right thing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from animegen.core.errors import AnimegenError, did_you_mean
from animegen.core.schema import register_schemas

CONFIG_MODULE = "animegen.conf"


def register() -> None:
    """Make our schemas and resolvers known to Hydra; calling it again changes nothing."""
    register_schemas()
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)
    OmegaConf.register_new_resolver("mul", lambda a, b: a * b, replace=True)
    OmegaConf.register_new_resolver("share", lambda part, whole: round(part * whole), replace=True)


def _run_dir(
    output: str | None, resume: str | None, runs: str, experiment: str, model: str, ablations: Any, seed: int, now: str
) -> str:
    """Return the folder of a run: the one named or resumed, else ``runs/<what>/<ablations>/seed<k>-<time>``."""
    if resume:
        return str(run_folder(resume))
    if output:
        return output
    what = experiment if experiment != "none" else model
    changes = "+".join(sorted(name for name, on in (ablations or {}).items() if on)) or "base"
    return str(Path(runs) / what / changes / f"seed{seed}-{now}")


def run_folder(path: str | Path) -> Path:
    """Return the run folder that a path means: the folder itself, or that of a checkpoint in it."""
    path = Path(path)
    return path.parent.parent if path.suffix == ".ckpt" else path


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose ``conf/<name>.yaml`` with command-line overrides.

    Raises:
        AnimegenError: for anything wrong with the overrides, with the nearest right key or option.
    """
    register()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            config = compose(name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(explain(error, name, overrides)) from error
    check_complete(config)
    return config


def check_complete(config: DictConfig) -> None:
    """Raise if a value that the user must give (``???``) is missing."""
    missing = sorted(key for key in OmegaConf.missing_keys(config) if not key.startswith("hydra."))
    if missing:
        raise AnimegenError(f"Missing on the command line: {', '.join(f'{key}=...' for key in missing)}")


def explain(error: BaseException, name: str, overrides: Sequence[str]) -> str:
    """Turn an error of Hydra or OmegaConf into one sentence with the nearest right key or option."""
    text = " ".join(str(error).split())
    override = re.search(r"Could not override '([^']+)'", text)
    if override or "Key '" in text:
        key = override.group(1) if override else re.search(r"Key '([^']+)'", text).group(1)  # type: ignore[union-attr]
        given = next((o.lstrip("+~").split("=")[0] for o in overrides if o.lstrip("+~").split("=")[0] == key), key)
        known = _known_keys(name, overrides)
        if "full_key" in text and not override:
            given = next((o.lstrip("+~").split("=")[0] for o in overrides if key in o.split("=")[0]), key)
        return f"There is no key '{given}' in this configuration.{did_you_mean(given, _same_depth_first(given, known))}"
    group = re.search(r"Could not find '([^']+)'", text) or re.search(r"In '[^']+': Could not load '([^']+)'", text)
    if group:
        wanted = group.group(1)
        folder, _, option = wanted.rpartition("/")
        options = list_options()
        same = [o for o in options if o.startswith(folder.split("/")[0] + "/")]
        return (
            f"There is no option '{wanted}'.{did_you_mean(wanted, same or options)}"
            f" Available in '{folder}': {', '.join(o[len(folder) + 1 :] for o in options if o.startswith(folder + '/'))}"
        )
    typed = re.search(r"Value '([^']*)' of type '[^']*' could not be converted to (\w+)", text)
    if typed:
        key = re.search(r"full_key: (\S+)", text)
        return f"{key.group(1) if key else 'A value'}={typed.group(1)} has the wrong type: it must be {_article(typed.group(2))}."
    enum = re.search(r"Invalid value '([^']*)', expected one of \[([^\]]*)\]", text)
    if enum:
        key = re.search(r"full_key: (\S+)", text)
        name_ = key.group(1) if key else "A value"
        return f"{name_}={enum.group(1)} is not possible: use one of {enum.group(2)}.{did_you_mean(enum.group(1), enum.group(2).split(', '))}"
    return text


def _article(kind: str) -> str:
    return {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}.get(kind, kind)


def _same_depth_first(word: str, keys: list[str]) -> list[str]:
    """Offer full keys; for a bare word also keys whose last part resembles it."""
    return [*keys, *(key for key in keys if key.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1])]


def _known_keys(name: str, overrides: Sequence[str]) -> list[str]:
    """Return all dotted keys of the configuration that the group choices in ``overrides`` compose."""
    groups = [o for o in overrides if o.split("=")[0] in list_groups()]
    try:
        GlobalHydra.instance().clear()
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            config = compose(name, overrides=groups)
    except (HydraException, OmegaConfBaseException):
        return []
    return [*_dotted(OmegaConf.to_container(config, resolve=False)), *list_groups()]


def _dotted(node: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if not str(key).startswith("_"):
                yield f"{prefix}{key}"
                yield from _dotted(value, f"{prefix}{key}.")


@lru_cache
def list_options() -> list[str]:
    """Return every option of every configuration group, e.g. ``model/animegan/v2``."""
    root = Path(str(resources.files(CONFIG_MODULE)))
    files = (path.relative_to(root).with_suffix("") for path in sorted(root.rglob("*.yaml")))
    return [path.as_posix() for path in files if len(path.parts) > 1 and not path.name.startswith("_")]


@lru_cache
def list_groups() -> list[str]:
    """Return the names of the configuration groups."""
    return sorted({option.split("/")[0] for option in list_options()})


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a resolved configuration as plain dicts, lists and values, as checkpoints store it."""
    return OmegaConf.to_container(config, resolve=True, enum_to_str=True)  # type: ignore[return-value]


def build(node: Any, what: str) -> Any:
    """Instantiate a configuration node; what a user got wrong in it becomes an AnimegenError."""
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except Exception as error:
        raise unwrap(error, what) from error


def unwrap(error: BaseException, what: str) -> BaseException:
    """Return the AnimegenError inside an error of Hydra's instantiation, or phrase one for it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, AnimegenError):
            return inner
        inner = inner.__cause__
    cause = error.__cause__ or error
    text = " ".join(str(cause).split())
    argument = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '([^']+)'", text)
    if argument:
        return AnimegenError(
            f"{what}: {argument.group(1)} has no setting '{argument.group(2)}'; see animegen list and the docstring of {argument.group(1)}."
        )
    if isinstance(error, HydraException) and isinstance(cause, (TypeError, ImportError, ValueError)):
        key = re.search(r"full_key: (\S+)", str(error))
        return AnimegenError(
            f"{what}{f' ({key.group(1)})' if key else ''} cannot be built from this configuration: {text.split(' full_key')[0]}"
        )
    return error
