"""The models that the page offers, by their names in its lists."""

from __future__ import annotations

from typing import Any

from animegen.config.trust import locate, permitted
from animegen.engine.runs import LAST, files_of_runs, read_record
from animegen.errors import AnimegenError
from animegen.files import user_path
from animegen.web.options import WebOptions

#: Methods of which a model has one, see :mod:`animegen.tasks.protocols`.
STYLIZES = ("stylize",)
DRAWS_BETWEEN = ("generate", "synthesize")


def offered(options: WebOptions, methods: tuple[str, ...]) -> dict[str, str]:
    """Return name -> checkpoint of the models with one of some methods: those given, then the runs, newest first.

    The page takes names only, so that it reads no other file of this machine.
    """
    runs = user_path("runs", options.runs)
    found = sorted(files_of_runs(runs, LAST), key=lambda path: path.stat().st_mtime, reverse=True)
    folders = [path.parents[1] for path in found]
    able = {folder.relative_to(runs).as_posix(): str(folder) for folder in folders if _has(folder, methods)}
    return {checkpoint: checkpoint for checkpoint in options.checkpoint} | able


def checkpoint_of(options: WebOptions, methods: tuple[str, ...], name: Any) -> str:
    """Return the checkpoint of an offered model.

    Raises:
        AnimegenError: if there is none of this name.
    """
    models = offered(options, methods)
    if name not in models:
        raise AnimegenError("Choose a model from the list; reload the page if it is out of date.")
    return models[name]


def _has(run: Any, methods: tuple[str, ...]) -> bool:
    """Return whether the model of a run has one of some methods; models of the user's own packages count as without."""
    try:
        config = read_record(run).get("config") or {}
        target = (config.get("model") or {}).get("_target_")
        return target in permitted("model") and any(hasattr(locate(target), method) for method in methods)
    except AnimegenError:  # a damaged record, or a model of another version
        return False
