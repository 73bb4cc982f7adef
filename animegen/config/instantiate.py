"""Instantiation of configuration nodes with readable errors."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

from hydra.errors import HydraException
from hydra.utils import instantiate

from animegen.config.arguments import check_arguments
from animegen.errors import AnimegenError, did_you_mean

#: Exceptions that constructors and allocators raise for wrong settings. Others are bugs, and keep their traceback.
MISTAKES = (TypeError, ValueError, ImportError, ArithmeticError, MemoryError, RuntimeError, HydraException)
#: Likewise, of libraries that are imported lazily.
NAMED_MISTAKES = ("MisconfigurationException",)


def build(node: Any, what: str, kind: type | None = None) -> Any:
    """Instantiate a configuration node.

    Args:
        node: dict with ``_target_``, or anything that Hydra can instantiate.
        what: name of the node for messages, e.g. ``model``.
        kind: required class.

    Raises:
        AnimegenError: for a wrong ``_target_`` or setting, or an error of the parts that are built.
    """
    check_arguments(node, what, locate)
    try:
        built = instantiate(node, _convert_="all")
    except Exception as error:
        sentence = explain_build(error, what)
        if sentence is None:
            raise
        raise AnimegenError(sentence) from error
    if kind is not None and not isinstance(built, kind):
        raise AnimegenError(f"{what} must build an instance of {kind.__name__}, not of {type(built).__name__}.")
    return built


def finish(partial: Callable[..., Any], what: str, *arguments: Any, **more: Any) -> Any:
    """Call the partial function of a node with ``_partial_: true``, such as an optimizer, with its last arguments.

    Raises:
        AnimegenError: as :func:`build`.
    """
    try:
        return partial(*arguments, **more)
    except Exception as error:
        sentence = explain_build(error, what, getattr(partial, "func", partial))
        if sentence is None:
            raise
        raise AnimegenError(sentence) from error


def explain_build(error: BaseException, what: str, called: Any = None) -> str | None:
    """Return the sentence about a failed construction, or ``None`` if it is not an error of the user.

    Args:
        error: the exception.
        what: name of the node for messages, unless the error contains a more exact one.
        called: the class or function that was called, unless the error contains it.
    """
    chain = list(_causes(error))
    for inner in chain:
        if isinstance(inner, AnimegenError):
            return str(inner)
    hydra = " ".join(" ".join(str(inner).split()) for inner in chain if isinstance(inner, HydraException))
    place = re.search(r"full_key: (\S+)", hydra)
    key = place.group(1) if place else what
    key = key if key.split(".")[0] == what.split(".")[0] else f"{what}.{key}"  # of a node without its parents
    if lost := re.search(r"Error locating target '([^']+)'", hydra):
        module, _, name = lost.group(1).rpartition(".")
        if problem := _import_problem(module):
            return f"{key}: '{module}' cannot be imported: {problem}"
        return f"{key}: there is no '{lost.group(1)}' that _target_ names.{did_you_mean(name, _names_in(module))}"
    cause = next((inner for inner in chain if not isinstance(inner, HydraException)), error)
    if not isinstance(cause, MISTAKES) and type(cause).__name__ not in NAMED_MISTAKES:
        return None
    text = " ".join(str(cause).split())
    targets = re.findall(r"Error in call to target '([^']+)'", hydra)
    called = locate(targets[-1]) if targets else called
    settings, owner = _settings(called), getattr(called, "__name__", None)
    if unknown := re.search(r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '([^']+)'", text):
        known = did_you_mean(unknown.group(2), settings) or (f" It has: {', '.join(settings)}." if settings else "")
        return f"{key}: {owner or unknown.group(1)} has no setting '{unknown.group(2)}'.{known}"
    if missing := re.search(r"(\w+)(?:\.__init__)?\(\) missing \d+ required .*?arguments?: (.+)", text):
        remedy = "give it a value"
        if "torch.optim" in str(targets) or "torch.optim" in getattr(called, "__module__", ""):
            remedy = "an optimizer or schedule needs '_partial_: true' next to its _target_"
        return f"{key}: {owner or missing.group(1)} lacks the setting {missing.group(2)}: {remedy}."
    return f"{key} cannot be built from this configuration: {text}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the chain of its causes, each once."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        yield inner
        inner = inner.__cause__


def _import_problem(module: str) -> str | None:
    """Return why a module that exists cannot be imported, or ``None``."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not (module == missing or module.startswith(f"{missing}.")):
            return str(error)
    return None


def _names_in(module: str) -> list[str]:
    """Return the public names of the nearest module of that dotted name that exists."""
    while module:
        try:
            return [name for name in dir(importlib.import_module(module)) if not name.startswith("_")]
        except ImportError:
            module = module.rpartition(".")[0]
    return []


def locate(target: str) -> Any:
    """Return the class or function of that dotted name, or ``None``."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return None


def _settings(called: Any) -> list[str]:
    """Return the names of the settings that a class or function takes, with those that its bases take."""
    if called is None:
        return []
    bases = inspect.getmro(called) if inspect.isclass(called) else ()
    names: dict[str, None] = {}
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [called]:
        parameters = inspect.signature(function).parameters.values()
        names |= dict.fromkeys(p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name != "self"]
