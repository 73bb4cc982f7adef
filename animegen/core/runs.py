"""Finding runs on disk, and going on with one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException

from animegen.core.config import run_folder
from animegen.core.errors import AnimegenError


def resolve_checkpoint(path: str, runs: str = "runs", what: str | None = None) -> Path:
    """Return the checkpoint file that a user means by ``last``, a run folder, or a file.

    Args:
        path: ``last`` takes the newest checkpoint below ``runs``.
        runs: folder that holds all runs.
        what: with ``last``, only runs below ``runs/<what>`` (an experiment).
    """
    if path == "last":
        below = Path(runs) / what if what else Path(runs)
        found = sorted(below.rglob("checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime)
        if not found:
            raise AnimegenError(
                f"There is no checkpoint below '{below}': train first, or name a run folder or a .ckpt file."
            )
        return found[-1]
    file = Path(path)
    if file.is_dir():
        inside = file / "checkpoints" / "last.ckpt"
        if not inside.is_file():
            raise AnimegenError(
                f"The folder '{file}' has no checkpoints/last.ckpt: it is not a run, or was stopped too early."
            )
        return inside
    if not file.is_file():
        raise AnimegenError(f"There is no checkpoint at '{file}': give a .ckpt file, a run folder, or 'last'.")
    return file


def read_record(folder: str | Path) -> dict[str, Any]:
    """Return the run record of a run folder."""
    path = Path(folder) / "run.json"
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise AnimegenError(
            f"'{folder}' has no readable run.json: it is not the folder of a run; checkpoints lie in"
            " <run folder>/checkpoints."
        ) from error
    except ValueError as error:
        raise AnimegenError(f"'{path}' is damaged ({error}): restore it, or start the run again.") from error
    if not isinstance(record, dict):
        raise AnimegenError(f"'{path}' is not the record of a run: restore it, or start the run again.")
    return record


def resumed_overrides(overrides: list[str]) -> list[str]:
    """Return the overrides of the run that ``resume=`` names, followed by the given ones.

    So ``animegen train resume=last`` needs nothing else, and ``resume=last train_steps=9000``
    trains on. With ``output=`` the run goes on in another folder, and the old one stays as it is.
    Without ``resume=`` the overrides are returned as they are.
    """
    values = {key: unquoted(value) for key, equals, value in (o.partition("=") for o in overrides) if equals}
    wanted = values.get("resume")
    if wanted in (None, "null", ""):
        return overrides
    checkpoint = resolve_checkpoint(str(wanted), values.get("runs", "runs"), values.get("experiment"))
    mine = [o for o in overrides if not o.startswith("resume=")]
    recorded = read_record(run_folder(checkpoint)).get("overrides", [])
    return [*merged_overrides(recorded, mine), f"resume={quoted(checkpoint)}"]


def merged_overrides(recorded: Sequence[str], given: Sequence[str]) -> list[str]:
    """Return the overrides of an earlier run followed by new ones, without those that were about that process."""
    gone = {"resume", "output", "overwrite", *(o.split("=", 1)[0] for o in given)}
    return [*(o for o in recorded if o.split("=", 1)[0] not in gone and not o.startswith("hydra.")), *given]


def quoted(value: str | Path) -> str:
    """Return a text as Hydra's override grammar takes it literally."""
    return QuotedString(str(value), Quote.single).with_quotes()


def unquoted(value: str) -> str:
    """Return the text that a value on the command line stands for."""
    try:
        read = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException:
        return value
    return "null" if read is None else str(read)
