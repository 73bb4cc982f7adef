"""Checkpoints that describe themselves: read, check, and rebuild a model from one file."""

from __future__ import annotations

import contextlib
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object

from animegen.config.instantiate import build
from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError

#: Parts of a model's configuration that only training needs. They are left out when a model is
#: rebuilt for use, so that a checkpoint alone is enough: no feature weights, no optimizers.
TRAINING_ONLY = ("optimizers", "schedulers", "objectives", "features", "ema", "compile")


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of a checkpoint of animegen, loaded without running code from it.

    Raises:
        AnimegenError: if the file is missing, cut off, malicious, or not one of ours.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise AnimegenError(f"There is no checkpoint at '{path}': give the path of a .ckpt file or of a run folder.")
    try:
        # Mapped into memory, so that looking at a big checkpoint's configuration does not read its weights.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise AnimegenError(
            f"'{path}' cannot be read as a checkpoint ({_first_line(error)}): the file is damaged, cut off,"
            " or holds more than plain data; use another checkpoint of the run."
        ) from error
    state = content.get("animegen") if isinstance(content, dict) else None
    config = state.get("config") if isinstance(state, dict) else None
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise AnimegenError(f"'{path}' is not a checkpoint of animegen: it does not hold the configuration of a run.")
    return content


def load_model(
    path: str | os.PathLike,
    device: str | torch.device = "auto",
    weights: str = "ema",
    packages: tuple[str, ...] = ("animegen",),
) -> AnimeModule:
    """Rebuild a trained model from its checkpoint, ready for use (eval mode, no gradients).

    Args:
        path: a ``.ckpt`` file, or a run folder (then its last checkpoint).
        device: ``auto`` (CUDA, else Apple's MPS, else CPU), or a torch device.
        weights: ``ema`` takes the averaged weights if the run kept any, ``raw`` the trained ones.
        packages: the model's classes must come from these packages, since the configuration inside
            a checkpoint may come from anybody. Add your own package to load models of your own.

    Raises:
        AnimegenError: if the file is missing or damaged, or names classes from elsewhere.
    """
    if weights not in ("ema", "raw"):
        raise AnimegenError(f"weights must be 'ema' or 'raw', not '{weights}'.")
    content = read_checkpoint(path)
    state = content["animegen"]
    config = {key: value for key, value in state["config"]["model"].items() if key not in TRAINING_ONLY}
    check_targets(config, path, packages)
    model = build(config, f"the model of '{path}'")
    if not isinstance(model, AnimeModule):
        raise AnimegenError(f"The configuration in '{path}' names no model of animegen: it was not loaded.")
    trained = _weights_in(content, averaged=weights == "ema")
    try:
        model.load_state_dict(trained, strict=True)
    except RuntimeError as error:
        raise AnimegenError(
            f"The weights in '{path}' do not fit the model that this version of animegen builds from its"
            f" configuration ({_first_line(error)}); it was written by version {state.get('version', 'unknown')}."
        ) from error
    model.train_step = int(state.get("train_step", 0))
    model.run_info = {key: state[key] for key in ("version", "config", "choices", "overrides") if key in state}
    model.to(pick_device(device)).eval().requires_grad_(False)
    return model


def begin_with(model: AnimeModule, path: str | os.PathLike) -> list[str]:
    """Give the networks of a new model the weights of those with the same names in a checkpoint, averaged ones first.

    What else a checkpoint holds (optimizers, steps, statistics of the data) stays behind: this is the beginning of a
    training, not the continuation of one.

    Returns:
        the names of the networks that begin with trained weights; the others begin as they are.

    Raises:
        AnimegenError: if the file cannot be read, has none of the networks, or one of another shape; the model is then
            as before.
    """
    weights = _weights_in(read_checkpoint(path), averaged=True)
    trained: dict[str, dict[str, torch.Tensor]] = {}
    for name, network in model.networks().items():
        start = f"{name}."
        given = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
        if not given:
            continue
        own = {key: value.shape for key, value in network.state_dict().items()}
        theirs = {key: value.shape for key, value in given.items()}
        wrong = [key for key in {**own, **theirs} if own.get(key) != theirs.get(key)]
        if wrong:
            raise AnimegenError(
                f"The {name} in '{path}' is another network than this model's: they differ in {len(wrong)} of their"
                f" entries, such as '{wrong[0]}'; set model.{name} as that run has it, or take init= away."
            )
        trained[name] = given
    if not trained:
        raise AnimegenError(
            f"'{path}' has no network called {' or '.join(model.networks())}: it is of another family; take init= away."
        )
    for name, given in trained.items():
        model.networks()[name].load_state_dict(given)
    return list(trained)


def _weights_in(content: dict[str, Any], averaged: bool) -> dict[str, torch.Tensor]:
    """Return the state dict of the model in a checkpoint, with the averages where there are some, if asked for."""
    weights = {key: value for key, value in content["state_dict"].items() if not key.startswith("objectives.")}
    if averaged:
        for network, averages in content["animegen"].get("ema", {}).get("averages", {}).items():
            weights.update({f"{network}.{key}": value for key, value in averages.items()})
    return weights


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device that ``device=auto|cpu|cuda|mps`` means on this machine."""
    if isinstance(device, torch.device):
        return device
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise AnimegenError(
            "device=cuda: this machine has no usable CUDA device; use device=cpu, or see animegen doctor."
        )
    if device == "mps" and not torch.backends.mps.is_available():
        raise AnimegenError("device=mps: this machine has no Apple GPU that torch can use; use device=cpu.")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise AnimegenError(f"device={device} is not a device: use auto, cpu, cuda or mps.") from error


def check_targets(
    node: Any, path: str | os.PathLike, packages: tuple[str, ...], base: type | None = torch.nn.Module
) -> None:
    """Accept a configuration from a checkpoint that can do nothing but build parts of the given packages.

    Args:
        node: the configuration, plain dicts, lists and values.
        path: the checkpoint, for messages.
        packages: where the named classes and functions must be defined.
        base: what the classes must be derived from; ``None`` accepts functions and any class.

    Raises:
        AnimegenError: if it names anything else.
    """
    if isinstance(node, dict):
        if "_target_" in node:
            _check_target(str(node["_target_"]), path, packages, base)
        node = [*node.keys(), *node.values()]
    if isinstance(node, list):
        for value in node:
            check_targets(value, path, packages, base)
    elif isinstance(node, str) and "${" in node:
        # A saved configuration is resolved; an interpolation could make a node that nobody has checked.
        raise AnimegenError(f"The checkpoint '{path}' has '{node}' in its configuration: it was not loaded.")


def _check_target(target: str, path: str | os.PathLike, packages: tuple[str, ...], base: type | None) -> None:
    found = None
    if any(target.startswith(f"{package}.") for package in packages):
        with contextlib.suppress(ImportError, ValueError):
            found = get_object(target)
    # Where it is defined counts, not how it is reached: 'animegen.engine.runs.json.loads' begins with 'animegen.', too.
    home = str(getattr(found, "__module__", ""))
    inside = any(home == package or home.startswith(f"{package}.") for package in packages)
    if not inside or (base is not None and not (isinstance(found, type) and issubclass(found, base))):
        kind = "network" if base is not None else "part"
        raise AnimegenError(
            f"The checkpoint '{path}' asks for '{target}', which is no {kind} of {', '.join(packages)}: it was not"
            " loaded. If it is your own, load it in Python with animegen.load_model(..., packages=...)."
        )


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160]
