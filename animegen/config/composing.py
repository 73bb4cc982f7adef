"""Hydra's composition, which keeps what the chosen groups compose: further values then cost a tenth of the time."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from animegen.config.groups import CONFIG_MODULE, list_groups

Composed = tuple[DictConfig, dict[str, Any]]

#: Search path of Hydra and name of a file of an installed package -> what the file holds, pickled.
_FILES: dict[tuple[str, ...], bytes] = {}


def compose_words(name: str, overrides: Sequence[str], explained: bool = True) -> Composed:
    """Return the composed configuration without Hydra's own part, and the chosen option of each group.

    Hydra spends most of its time on the groups. A process composes the same ones again and again: for the jobs of a
    sweep, and to find what an ablation changes.

    Args:
        name: name of the configuration.
        overrides: words of the command line.
        explained: if words do not fit, compose them once more by Hydra, for its complete error message.

    Raises:
        HydraException: for words that do not fit, as Hydra raises it.
        OmegaConfBaseException: for values that do not fit.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        if not any(map(_is_special, parsed)):
            groups = tuple(str(word.input_line) for word in parsed if _is_group(word))
            config, choices = pickle.loads(_composed_groups(name, groups))
            ConfigLoaderImpl._apply_overrides_to_config([word for word in parsed if not _is_group(word)], config)
            return config, choices
    except (HydraException, OmegaConfBaseException):
        if not explained:
            raise
    return _compose(name, overrides)


def _is_special(word: Override) -> bool:
    """Return whether a word concerns Hydra, or is one of a sweep."""
    return str(word.key_or_group).startswith("hydra") or word.is_sweep_override()


def _is_group(word: Override) -> bool:
    """Return whether a word chooses an option of a group; a dict is a value of its node."""
    key = str(word.key_or_group)
    return (key in list_groups() or "/" in key or word.package is not None) and not isinstance(word.value(), dict)


@lru_cache(maxsize=256)
def _composed_groups(name: str, words: tuple[str, ...]) -> bytes:
    """Return, pickled, what words that choose options compose; to be copied is what pickles do fastest."""
    return pickle.dumps(_compose(name, words))


def _compose(name: str, overrides: Sequence[str]) -> Composed:
    _choices_on_demand()
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        loader.repository = _FilesReadOnce(loader.config_search_path)
        config = compose(name, overrides=list(overrides), return_hydra_config=True)
    choices = dict(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


@cache
def _choices_on_demand() -> None:
    """Let Hydra convert the choices so far only for files whose defaults refer to them, ``${...}``.

    It does so for each of two dozen files, which takes a quarter of the time of a composition.
    """
    convert = defaults_list._create_interpolation_map

    def needed(overrides: Any, defaults: Sequence[Any], self_added: bool) -> DictConfig:
        if any(default.is_interpolation() for default in defaults):
            return convert(overrides, list(defaults), self_added)
        return DictConfig({})

    vars(defaults_list)["_create_interpolation_map"] = needed


class _FilesReadOnce(ConfigRepository):
    """Hydra's repository, which reads each file of a package once per process.

    A composition reads two dozen files, most of them those of every other composition. To read one takes almost
    thirty times as long as to unpickle what it holds. Files of a folder (``hydra.searchpath=[file://...]``) are read
    again, since the user may write them.
    """

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return what a file holds, as a copy."""
        key = (*(f"{source.scheme()}://{source.path}" for source in self.sources), config_path)
        if key in _FILES:
            found: ConfigResult = pickle.loads(_FILES[key])
            return found
        read = super().load_config(config_path)
        if read is not None and read.path.startswith("pkg://"):
            _FILES[key] = pickle.dumps(read)
        return read
