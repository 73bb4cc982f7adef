"""The models that the page offers, by their names in its lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from animegen.config.looks import USUAL, USUAL_FOR_VIDEOS, looks
from animegen.config.trust import locate, permitted
from animegen.engine.runs import LAST, files_of_runs, read_record
from animegen.errors import AnimegenError
from animegen.files import user_path
from animegen.web.options import WebOptions

#: Command -> the methods of which its models have one, see :mod:`animegen.tasks.protocols`.
METHODS = {"stylize": ("stylize",), "generate": ("generate", "synthesize")}


def offered(options: WebOptions, command: str, videos: bool = False) -> dict[str, str]:
    """Return name -> checkpoint of the models that a command applies.

    They are the shipped looks, the usual one first, which may be another one for videos; those of ``checkpoint=``; and
    the runs, newest first. The page takes names only, so that it reads no other file of this machine.
    """
    first = [USUAL_FOR_VIDEOS.get(command)] if videos else []
    first.append(USUAL[command])
    shipped = sorted(looks().values(), key=lambda look: first.index(look.name) if look.name in first else len(first))
    found = {look.name: str(look.file) for look in shipped if command in look.commands}
    found |= {checkpoint: checkpoint for checkpoint in options.checkpoint}
    runs = user_path("runs", options.runs)
    for file in sorted(files_of_runs(runs, LAST), key=lambda path: path.stat().st_mtime, reverse=True):
        folder = file.parents[1]
        if _is_for(folder, command):
            found.setdefault(folder.relative_to(runs).as_posix(), str(folder))
    return found


def choices(options: WebOptions, command: str, videos: bool = False) -> list[tuple[str, str]]:
    """Return the offered models as (text, name); of a look, the text has the first clause of what it is for."""
    about = {look.name: f"{look.name}: {look.about.partition(',')[0]}" for look in looks().values()}
    return [(about.get(name, name), name) for name in offered(options, command, videos)]


def checkpoint_of(options: WebOptions, command: str, name: Any) -> str:
    """Return the checkpoint of an offered model.

    Raises:
        AnimegenError: if there is none of this name.
    """
    found = offered(options, command)
    if not found:
        raise AnimegenError(
            f"There is no model for this in '{options.runs}' yet: train one (animegen train --help), or name a"
            " checkpoint with animegen web checkpoint=..."
        )
    if name not in found:
        raise AnimegenError("Choose a model from the list; reload the page if it is out of date.")
    return found[name]


def _is_for(run: Path, command: str) -> bool:
    """Return whether a command applies the model of a run; it applies none of the user's own packages."""
    try:
        config = read_record(run).get("config") or {}
        target = (config.get("model") or {}).get("_target_")
        return target in permitted("model") and any(hasattr(locate(target), method) for method in METHODS[command])
    except AnimegenError:  # a damaged record, or a model of another version
        return False
