"""Hydra's launchers, which start the runs of a grid elsewhere than one after the other on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence

from animegen.errors import AnimegenError, did_you_mean
from animegen.launch import slots

#: launcher -> (the module of its plugin, the extra that installs it)
LAUNCHERS = {
    "basic": ("hydra", ""),
    "joblib": ("hydra_plugins.hydra_joblib_launcher", "sweep"),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "ray": ("hydra_plugins.hydra_ray_launcher", "ray"),
}
#: The classes of launchers that start runs side by side on this machine, and do not assign GPUs.
SIDE_BY_SIDE = ("JoblibLauncher", "LocalLauncher")


def key_of(word: str) -> str:
    """Return the key of an override."""
    return word.partition("=")[0].lstrip("+~")


def split_launcher(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return (overrides that choose a launcher and its settings, other words)."""
    launcher = [word for word in words if key_of(word).startswith(("hydra/launcher", "hydra.launcher."))]
    return launcher, [word for word in words if word not in launcher]


def launcher_of(words: Sequence[str]) -> str:
    """Return the name of the launcher that overrides choose; ``basic`` is the runner of animegen."""
    return next((word.partition("=")[2] for word in reversed(words) if key_of(word) == "hydra/launcher"), "basic")


def check_launcher(name: str) -> None:
    """Raise if a launcher does not exist, or if its packages are not installed."""
    if name not in LAUNCHERS:
        raise AnimegenError(
            f"There is no hydra/launcher={name}.{did_you_mean(name, LAUNCHERS)} There are: {', '.join(LAUNCHERS)}."
        )
    _check_installed(f"hydra/launcher={name}", *LAUNCHERS[name])


def check_search(words: Sequence[str]) -> None:
    """Raise if the packages of Optuna, which a search needs, are not installed."""
    chosen = next(
        (word for word in words if key_of(word) == "search" and word != "search=none"), "hydra/sweeper=optuna"
    )
    if chosen != "hydra/sweeper=optuna" or chosen in words:
        _check_installed(chosen, "hydra_plugins.hydra_optuna_sweeper", "sweep")


def _check_installed(word: str, module: str, extra: str) -> None:
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec(module) is not None:
            return
    raise AnimegenError(f"{word} needs further packages: pip install 'animegen[{extra}]'.")


def with_defaults(words: Sequence[str]) -> list[str]:
    """Return the overrides of a launcher, preceded by settings that suit training and that they do not set.

    The plugins' own defaults are as many runs at a time as there are cores, one hour per run, and no GPU.
    """
    name, given = launcher_of(words), {key_of(word) for word in words}
    gpus = slots.list_gpus() if name in ("joblib", "submitit_local", "ray") else []
    defaults = {
        "joblib": [f"hydra.launcher.n_jobs={slots.default_count(gpus)}", "hydra.launcher.batch_size='1'"],
        # All runs start at once and see all GPUs; each waits for its share, see free_slot().
        "submitit_local": [f"hydra.launcher.timeout_min={7 * 24 * 60}", f"hydra.launcher.gpus_per_node={len(gpus)}"],
        # A running cluster refuses the plugin's object_store_memory. A retry would not resume, resume_sweep= does.
        "ray": [
            "++hydra.launcher.ray.init.object_store_memory=null",
            "++hydra.launcher.ray.remote.max_retries=0",
            f"++hydra.launcher.ray.remote.num_gpus={min(1, len(gpus))}",
        ],
    }
    return [*(word for word in defaults.get(name, []) if key_of(word) not in given), *words]
