"""Finding runs on disk, and going on with one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise AnimegenError(f"'{folder}' has no run.json: it is not the folder of a run.") from error
    except json.JSONDecodeError as error:
        raise AnimegenError(f"'{path}' is damaged ({error}); start the run again.") from error


def resumed_overrides(overrides: list[str]) -> list[str]:
    """Return the overrides of the run that ``resume=`` names, followed by the given ones.

    So ``animegen train resume=last`` needs nothing else, and ``resume=last train_steps=9000``
    trains on. Without ``resume=`` the overrides are returned as they are.
    """
    wanted = next((o.split("=", 1)[1] for o in overrides if o.startswith("resume=")), None)
    if wanted in (None, "null", ""):
        return overrides
    keys = dict(o.split("=", 1) for o in overrides if "=" in o)
    checkpoint = resolve_checkpoint(str(wanted), keys.get("runs", "runs"), keys.get("experiment"))
    recorded = read_record(run_folder(checkpoint)).get("overrides", [])
    # A folder named in the first command is the one we resume in anyway.
    recorded = [o for o in recorded if not o.startswith(("resume=", "output=", "overwrite="))]
    mine = [o for o in overrides if not o.startswith("resume=")]
    given = {o.split("=", 1)[0] for o in mine}
    kept = [o for o in recorded if o.split("=", 1)[0] not in given]
    return [*kept, *mine, f"resume='{checkpoint}'"]
