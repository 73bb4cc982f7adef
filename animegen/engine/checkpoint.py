"""Checkpoints that describe themselves: read, check, and rebuild a model from one file."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from animegen import __version__
from animegen.config.looks import WEIGHTS, looks
from animegen.config.mismatch import mismatch
from animegen.config.plain import plain_data, shown
from animegen.config.trust import build_from
from animegen.engine.module import AnimeModule
from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.weight_files import check_content, check_sums, checked_state, first_line, load_data

#: Parts of a model's configuration that only training needs. They are omitted when a model is rebuilt for application,
#: which then needs no feature weights.
TRAINING_ONLY = ("optimizers", "schedulers", "objectives", "features", "ema", "compile")

OTHER = "use another checkpoint of the run"
REMEDY = (
    "If you wrote it, or trust who did, add trust=true (in Python load_model(..., packages=['your_package']), or"
    " trust=True): then the checkpoint may import and run any Python code that is installed."
)


class Config(TypedDict, total=False):
    """Fields of the configuration of a run that are read from a checkpoint."""

    model: dict[str, Any]
    data: dict[str, Any] | None
    seed: int
    train_steps: int


class Averages(TypedDict):
    """State of the averaged weights."""

    updates: int
    averages: dict[str, Any]


class Header(TypedDict, total=False):
    """Metadata of a checkpoint, under its key ``animegen``."""

    version: str
    config: Config
    choices: dict[str, Any]
    overrides: list[str]
    train_step: int
    metrics: dict[str, float]
    optimizers: list[str]
    imported: dict[str, str]


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of a checkpoint of animegen, without running code from it.

    Weights are memory-mapped, so reading the configuration of a large checkpoint does not read its weights. The
    metadata under the key ``animegen`` are plain data of the types that `Header` declares; ``state_dict`` and the
    averages are dicts of ordinary tensors.

    Raises:
        AnimegenError: if the file is missing, truncated, malicious, or no checkpoint of animegen.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise no_checkpoint(path)
    content = load_data(path, "a checkpoint", OTHER, mapped=True)
    state = content.get("animegen") if type(content) is dict else None
    if type(state) is not dict:
        raise AnimegenError(f"'{path}' is not a checkpoint of animegen: it does not hold the configuration of a run.")
    source = f"The checkpoint '{path}'"
    header = plain_data({key: value for key, value in state.items() if key != "ema"}, source)
    if not isinstance(header.get("config"), dict) or not isinstance(header["config"].get("model"), dict):
        raise AnimegenError(f"'{path}' is not a checkpoint of animegen: it does not hold the configuration of a run.")
    if fault := mismatch(header, Header, "animegen"):
        raise AnimegenError(f"{source} is damaged: {fault}; {OTHER}.")
    if header.get("train_step", 0) < 0:
        raise AnimegenError(f"{source} is damaged: its train_step is {header['train_step']}; {OTHER}.")
    if state.get("ema") is not None:
        header["ema"] = _averages(state["ema"], source)
    states = checked_state(content.get("state_dict"), source)
    extra = {key: value for key, value in dict.items(content["state_dict"]) if key not in states}
    return {**content, "animegen": header, "state_dict": {**states, **plain_data(extra, source)}}


def _averages(ema: Any, source: str) -> dict[str, Any]:
    if type(ema) is not dict or mismatch(ema, Averages, "ema"):
        raise AnimegenError(f"{source} is damaged: its averaged weights are not a dict of tensors; {OTHER}.")
    averages = {name: checked_state(state, f"{source}, averages of {name},") for name, state in ema["averages"].items()}
    return {"updates": ema["updates"], "averages": averages}


def load_model(
    path: str | os.PathLike,
    device: str | torch.device = "auto",
    weights: str = "ema",
    packages: Sequence[str] = (),
    trust: bool = False,
) -> AnimeModule:
    """Rebuild a trained model from its checkpoint, ready for use (eval mode, no gradients).

    Args:
        path: a ``.ckpt`` file, a run folder (then its last checkpoint), or the name of a shipped look.
        device: ``auto`` (CUDA, else Apple's MPS, else CPU), or a torch device.
        weights: ``ema`` for the averaged weights if there are any, ``raw`` for the trained ones.
        packages: further packages whose modules a checkpoint may build. Without them it can only build networks of
            animegen, see ``docs/security.md``.
        trust: build every class that the checkpoint names, which may import and run any Python code.

    Raises:
        AnimegenError: if the file is missing or damaged, names other classes, or does not fit this version.
    """
    if weights not in ("ema", "raw"):
        raise AnimegenError(f"weights must be 'ema' or 'raw', not '{weights}'.")
    content = read_checkpoint(path)
    state, source = content["animegen"], f"The checkpoint '{path}'"
    check_sums(checkpoint_file(path), OTHER)
    with _explained_version(path, state.get("version")):
        model = _rebuilt(path, content, source, weights, packages, trust)
    model.train_step = state.get("train_step", 0)
    model.run_info = {key: state[key] for key in ("version", "config", "choices", "overrides") if key in state}
    model.to(pick_device(device)).eval().requires_grad_(False)
    return model


@contextlib.contextmanager
def _explained_version(path: str | os.PathLike, version: Any) -> Iterator[None]:
    """Add the version of a checkpoint to errors inside the ``with`` block, if it is of another minor version."""
    try:
        yield
    except AnimegenError as error:
        minor = ".".join(str(version).split(".")[:2])
        if version is None or minor == ".".join(__version__.split(".")[:2]):
            raise
        raise AnimegenError(
            f"'{path}' was written by animegen {version} and cannot be loaded by version {__version__}: use animegen"
            f" {minor}, or train the model again. (The reason: {str(error).rstrip('.')}.)"
        ) from error


def _rebuilt(
    path: str | os.PathLike,
    content: dict[str, Any],
    source: str,
    weights: str,
    packages: Sequence[str],
    trust: bool,
) -> AnimeModule:
    """Build the model of a checkpoint from its configuration, with its weights; see :func:`load_model`."""
    state = content["animegen"]
    config = {key: value for key, value in state["config"]["model"].items() if key not in TRAINING_ONLY}
    own = tuple(f"{package}." for package in packages)
    trained = _weights_in(content, averaged=weights == "ema")
    misfit = (
        f"The weights in '{path}' do not fit the model that this version of animegen builds from its configuration"
        f" ({{}}); it was written by version {state.get('version', 'unknown')}."
    )
    if not (trust or own):
        # Without allocating weights: a file must not demand more memory than it holds.
        with torch.device("meta"), _Uninitialized(), _limited_modules(1000 + 50 * len(trained), source):
            outline = build_from(config, "model", source, REMEDY, base=nn.Module)
        if isinstance(outline, AnimeModule) and (fault := _difference(outline.state_dict(), trained)):
            raise AnimegenError(misfit.format(fault))
    model = build_from(config, "model", source, REMEDY, own, nn.Module, trust)
    if not isinstance(model, AnimeModule):
        raise AnimegenError(f"The configuration in '{path}' names no model of animegen: it was not loaded.")
    try:
        model.load_state_dict(trained, strict=True)
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise AnimegenError(misfit.format(first_line(error))) from error
    return model


def no_checkpoint(path: Path) -> AnimegenError:
    """Return the error to raise for a checkpoint that does not exist."""
    near = did_you_mean(str(path), looks())
    return AnimegenError(
        f"There is no checkpoint at '{path}': give a .ckpt file, a run folder, 'last', or the name of a look.{near}"
    )


def read_resumable(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, see :func:`read_checkpoint`, after checking types, sizes and checksums.

    Raises:
        AnimegenError: if it is damaged.
    """
    content = read_checkpoint(path)
    check_content(content, f"The checkpoint '{path}'")
    check_sums(checkpoint_file(path), OTHER)
    return content


def checkpoint_file(path: str | os.PathLike) -> Path:
    """Return the path of a checkpoint, given a file, a run folder, the folder of a look, or the name of a shipped one.

    A name means the look only if there is no file or folder of that name.
    """
    path = Path(path)
    if path.is_dir():
        look = path / WEIGHTS
        return look if look.is_file() else path / "checkpoints" / "last.ckpt"
    shipped = looks().get(str(path))
    return path if shipped is None or path.exists() else shipped.file


class _Uninitialized(TorchFunctionMode):
    """Skip random numbers and norms: on the meta device they have no effect, but import torch's compiler."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.functional.normalize) or getattr(func, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        if func is torch.eye:
            return torch.empty(args[0], args[0])
        if func is torch.randn:
            func = torch.empty
            kwargs.pop("generator", None)
        return func(*args, **kwargs)


@contextlib.contextmanager
def _limited_modules(limit: int, source: str) -> Iterator[None]:
    """Limit the number of modules that are built inside the ``with`` block."""
    count = itertools.count(1)

    def counted(*_: Any) -> None:
        if next(count) > limit:
            raise AnimegenError(f"{source} is refused: its configuration asks for more layers than it has weights.")

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def _difference(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> str | None:
    """Return a description of how two state dicts differ in names and shapes, or ``None``."""
    shapes = [{key: tuple(v.shape) if isinstance(v, Tensor) else None for key, v in d.items()} for d in (wanted, given)]
    wrong = [key for key in {**shapes[0], **shapes[1]} if shapes[0].get(key, ()) != shapes[1].get(key, ())]
    if not wrong:
        return None
    sizes = " and ".join(
        "absent" if key not in s else str(s[key]) for s, key in zip(shapes, wrong[:1] * 2, strict=True)
    )
    return f"{len(wrong)} of their entries differ, such as {shown(wrong[0])}: {sizes}"


def load_pretrained(model: AnimeModule, path: str | os.PathLike) -> list[str]:
    """Initialize networks of a new model with those of the same names in a checkpoint, with averaged weights if any.

    Optimizers, steps and statistics of the data are not loaded: this starts a new training.

    Returns:
        the names of the initialized networks.

    Raises:
        AnimegenError: if the file cannot be read, or has none of the networks, or one with other shapes. The model is
            then unchanged.
    """
    weights = _weights_in(read_checkpoint(path), averaged=True)
    check_sums(checkpoint_file(path), OTHER)
    trained: dict[str, dict[str, Any]] = {}
    for name, network in model.networks().items():
        start = f"{name}."
        given = {key.removeprefix(start): value for key, value in weights.items() if key.startswith(start)}
        if not given:
            continue
        if fault := _difference(network.state_dict(), given):
            raise AnimegenError(
                f"The {name} in '{path}' is another network than this model's: {fault}; set model.{name} as that run"
                " has it, or init=null to start without trained weights."
            )
        trained[name] = given
    if not trained:
        raise AnimegenError(
            f"'{path}' has no network called {' or '.join(model.networks())}: it is of another family; set init=null."
        )
    for name, given in trained.items():
        model.networks()[name].load_state_dict(given)
    return list(trained)


def _weights_in(content: dict[str, Any], averaged: bool) -> dict[str, Any]:
    """Return the state dict of the model in a checkpoint; with ``averaged``, averages replace the weights."""
    weights = {key: value for key, value in content["state_dict"].items() if not key.startswith("objectives.")}
    if averaged:
        for network, averages in content["animegen"].get("ema", {}).get("averages", {}).items():
            weights.update({f"{network}.{key}": value for key, value in averages.items()})
    return weights


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return the torch device for ``device=auto|cpu|cuda|mps``.

    Raises:
        AnimegenError: if the machine does not have it.
    """
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
