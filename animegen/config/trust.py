"""Objects that a configuration from a file may build: listed constructors with valid settings only.

The configuration that is installed with animegen is trusted, and so is the command line. Checkpoints and
records of runs may come from anyone: each name in them must be in the lists of this module before anything is
imported or built. ``docs/security.md`` explains the model to users.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import instantiate

from animegen.config.groups import CONFIG_MODULE
from animegen.config.instantiate import explain_build
from animegen.config.mismatch import check_settings
from animegen.config.plain import plain_data, shown
from animegen.errors import AnimegenError

#: Role (a top-level key of the configuration) -> modules whose public classes may be built there. Of other roles only
#: what the installed configuration builds: a callback may write files where its settings say.
EXPORTING = {
    "model": ("animegen.losses", "animegen.models.*", "animegen.models.*.networks"),
    "data": ("animegen.data", "animegen.data.clips", "animegen.data.keyframes"),
}
#: Role -> base class.
BASES = {"model": "torch.nn.Module", "data": "builtins.object"}
#: Modules of torch -> the classes that a model may be built of: none accepts a function or a path.
TORCH = {
    "torch.nn": (
        *("L1Loss", "MSELoss", "SmoothL1Loss", "HuberLoss", "CrossEntropyLoss", "BCELoss", "BCEWithLogitsLoss"),
        *("KLDivLoss", "CosineEmbeddingLoss", "Identity", "ReLU", "LeakyReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish"),
        *("Tanh", "Sigmoid", "Hardtanh", "Softplus", "InstanceNorm2d", "BatchNorm2d", "GroupNorm", "LayerNorm"),
    ),
    "torch.optim": (
        *("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "ASGD", "Rprop"),
        *("Adafactor", "Muon"),
    ),
    "torch.optim.lr_scheduler": (
        *("StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR", "PolynomialLR", "CosineAnnealingLR"),
        *("CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR"),
    ),
}
#: Further permitted names, which are not in the installed configuration.
MORE = {
    "model": frozenset(f"{module}.{name}" for module, names in TORCH.items() for name in names),
    "data": frozenset({"animegen.media.video.flow.DISFlow", "animegen.media.video.flow.RAFTFlow"}),
    "trainer": frozenset({"pytorch_lightning.strategies.DDPStrategy", "pytorch_lightning.strategies.FSDPStrategy"}),
}
#: Roles -> other roles whose parts are built there, too: a model has a feature network and the guides of its data.
INSIDE = {"model": ("features", "data"), "benchmark": ("features",)}
#: Roles that are a single node; callbacks and loggers are dicts of nodes.
NODES = ("model", "data", "trainer", "benchmark", "features")
#: Settings that name a program to run: (role, key) -> the values that name none.
PROGRAMS = {("benchmark", "network"): (None, "none", "random3d")}
#: Roles whose settings must not contain a path: the run decides where they write.
PATHLESS = ("trainer", "logger")
#: Hydra's own keys in a node, and their values. (``_args_`` would bypass the checks with unnamed settings.)
SPECIAL: dict[str, tuple[Any, ...]] = {
    "_partial_": (True, False),
    "_recursive_": (True, False),
    "_convert_": ("none", "partial", "object", "all"),
}

_TARGET = re.compile(r"_target_\W+([\w.]+)")


def check_config(config: Mapping[str, Any], source: str, remedy: str, own: Collection[str] = ()) -> None:
    """Check the resolved configuration of a run that comes from a file.

    Args:
        config: plain data; each top-level key is a role.
        source: the file for messages, e.g. ``The record 'run.json'``.
        remedy: advice on the user's own constructors; a sentence.
        own: constructors that the user has named on the command line.

    Raises:
        AnimegenError: if it names anything that is not listed for its role, or settings that do not fit.
    """
    for role, node in config.items():
        if role in NODES and node and not (isinstance(node, dict) and "_target_" in node):
            raise AnimegenError(f"{source} is refused: {role} is {shown(node)}, not a dict with the key '_target_'.")
        check_node(node, role, source, remedy, own)


def check_node(
    node: Any, role: str, source: str, remedy: str, own: Collection[str] = (), base: type | None = None
) -> None:
    """Check a part of a configuration that comes from a file.

    Args:
        node: plain data.
        role: the top-level key of the configuration to which it belongs.
        source: the file for messages.
        remedy: advice on the user's own constructors; a sentence.
        own: constructors that the user has named. A name that ends in ``.`` is a package: all its classes.
        base: class from which all constructors must be derived; ``None``: any, also functions.

    Raises:
        AnimegenError: if it names anything that is not listed for the role, or settings that do not fit.
    """
    for where, part in _dicts(node, role):
        for key, value in part.items():
            if key == "_target_":
                if not isinstance(value, str) or not _permitted(value, role, own, base):
                    moved = str(value).startswith("animegen.")
                    hint = " It may exist in another version of animegen." if moved else ""
                    raise AnimegenError(
                        f"{source} is refused: {where} asks for {shown(value)}, which is not on the list of what a"
                        f" file may build there.{hint} {remedy}"
                    )
            elif key.startswith("_") and key.endswith("_") and value not in SPECIAL.get(key, ()):
                raise AnimegenError(f"{source} is refused: {shown(f'{where}.{key}')} has no place in a configuration.")
            elif (role, key) in PROGRAMS and value not in PROGRAMS[role, key]:
                raise AnimegenError(f"{source} is refused: {where}.{key} names a program, {shown(value)}. {remedy}")
            elif role in PATHLESS and isinstance(value, str) and re.search(r"[/\\]", value):
                raise AnimegenError(f"{source} is refused: {where}.{key} names a path, {shown(value)}. {remedy}")
    if role == "trainer" and isinstance(node, dict) and node.get("precision") == "auto":
        node = {**node, "precision": None}  # animegen's own word, which Lightning does not know
    if role != "benchmark" and (fault := check_settings(node, locate, role)):  # its settings are for several functions
        raise AnimegenError(f"{source} is refused: {fault}.")


def build_from(
    node: Any,
    role: str,
    source: str,
    remedy: str,
    own: Collection[str] = (),
    base: type | None = None,
    trust: bool = False,
) -> Any:
    """Build a part of a configuration that comes from a file, after checking it.

    Args:
        node: the loaded configuration.
        role: see `check_node`; likewise ``source``, ``remedy``, ``own`` and ``base``.
        trust: build it without any check.

    Raises:
        AnimegenError: if it is refused, or its settings are invalid.
    """
    if not trust:
        node = plain_data(node, source)
        check_node(node, role, source, remedy, own, base)
    try:
        return instantiate(node, _convert_="all")
    except Exception as error:  # a constructor may raise anything for the values of a file
        text = explain_build(error, role) or f"{type(error).__name__}, {' '.join(str(error).split())[:200]}"
        raise AnimegenError(text if text.startswith(source) else f"{source} cannot be used: {text}") from error


def locate(target: str) -> Any:
    """Return the class or function of a dotted name. The module is imported: pass only permitted names.

    Raises:
        AnimegenError: if it does not exist.
    """
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise AnimegenError(f"There is no '{target}' in this version of animegen or its libraries.") from error


def permitted(role: str) -> frozenset[str]:
    """Return the names of a role that need no import to be known: those of the installed configuration, and `MORE`."""
    roles = (role, *INSIDE.get(role, ()))
    return frozenset().union(*(installed().get(each, frozenset()) | MORE.get(each, frozenset()) for each in roles))


@lru_cache
def installed() -> dict[str, frozenset[str]]:
    """Return the constructors of the installed configuration by role, the top-level key that contains them."""
    root = Path(str(resources.files(CONFIG_MODULE)))
    found: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if "_target_" not in text:
            continue
        everywhere = "@package _global_" in text.partition("\n")[0] or path.parent == root
        role = "" if everywhere else path.relative_to(root).parts[0]
        for key, target in _targets(yaml.load(text, Loader=_Loader), role):
            found.setdefault(key, set()).add(target)
    return {role: frozenset(targets) for role, targets in found.items()}


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _targets(node: Any, role: str) -> Iterator[tuple[str, str]]:
    """Yield (role, name) of the nodes of a file, also of those in overrides such as ``model.x={_target_: ...}``."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_" and isinstance(value, str):
                yield role, value
            else:
                yield from _targets(value, role or str(key))
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, role)
    elif isinstance(node, str) and "_target_" in node:
        key = node.partition("=")[0].lstrip("+~").split(".")[0]
        yield from ((key, target) for target in _TARGET.findall(node.replace("._target_=", "={_target_: ")))


def named_in(words: Collection[str]) -> frozenset[str]:
    """Return the constructors that the command line names."""
    texts = (word.replace("._target_=", "={_target_: ") for word in words)
    return frozenset(target for text in texts for target in _TARGET.findall(text))


def _permitted(target: str, role: str, own: Collection[str], base: type | None) -> bool:
    packages = [name for name in own if name.endswith(".")]
    if target in own or any(target.startswith(package) for package in packages):
        found = locate(target)
        inside = any(f"{getattr(found, '__module__', '')}.".startswith(package) for package in packages)
        return (target in own or inside) and _derived(found, base)
    if target in permitted(role):
        return base is None or _derived(locate(target), base)
    module, _, name = target.rpartition(".")
    for each in (role, *INSIDE.get(role, ())):
        patterns = (pattern.replace(".", r"\.").replace("*", r"\w+") for pattern in EXPORTING.get(each, ()))
        if any(re.fullmatch(pattern, module) for pattern in patterns) and name in _exported(module):
            found = locate(target)
            return _derived(found, locate(BASES[each])) and _derived(found, base)
    return False


def _exported(module: str) -> Collection[str]:
    try:
        return getattr(importlib.import_module(module), "__all__", ())
    except ImportError:
        return ()


def _derived(found: Any, base: type | None) -> bool:
    return base is None or (isinstance(found, type) and issubclass(found, base))


def _dicts(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield where, node
        for key, value in node.items():
            yield from _dicts(value, f"{where}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from _dicts(value, f"{where}.{number}")
