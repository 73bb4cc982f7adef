"""The command that applies a model which has been trained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from animegen.media.kinds import VIDEO_SUFFIXES
from animegen.tasks.protocols import ClipGenerator, Interpolator, Stylizer

#: The folder of runs in which ``checkpoint=last`` looks.
USUAL_RUNS = "runs"


def next_command(model: Any, folder: Path, data: Mapping[str, Any]) -> str | None:
    """Return the command that applies the model of a run, or ``None`` if it does nothing that a command applies.

    The input is that of the training where it is a file or folder of the user: for a key-frame project its clip.
    Otherwise the names are examples.

    Args:
        model: the trained model.
        folder: of the run; its model is ``last`` if it is below `USUAL_RUNS`.
        data: the node ``data`` of its configuration.
    """
    below = Path(USUAL_RUNS).absolute()
    words = [f"checkpoint={'last' if below in folder.absolute().parents else folder}"]
    if isinstance(model, ClipGenerator):
        return _joined("generate", *words, "first=a.png", "last=b.png", "output=clip.mp4")
    if isinstance(model, Interpolator):
        found = _single_video(data.get("videos"))
        return _joined("interpolate", *words, f"input={found or 'video.mp4'}", "output=smooth.mp4", "factor=2")
    if not isinstance(model, Stylizer):
        return None
    source = _clip(data) or data.get("video") or data.get("videos") or data.get("photos")
    if source is None:
        return _joined("stylize", *words, "input=photo.jpg", "output=drawn.jpg")
    is_video = Path(str(source)).suffix.lower() in VIDEO_SUFFIXES
    return _joined("stylize", *words, f"input={source}", "output=drawn.mp4" if is_video else "output=drawn")


def _joined(*words: str) -> str:
    return shlex.join(["animegen", *words])


def _clip(data: Mapping[str, Any]) -> str | None:
    """Return the clip of a key-frame project: a folder of frames or a video."""
    if not str(data.get("_target_", "")).endswith(".KeyframeData") or not data.get("folder"):
        return None
    if data.get("clip"):
        return str(data["clip"])
    place = Path(str(data["folder"]))
    return str(place / "frames") if (place / "frames").is_dir() else _single_video(place)


def _single_video(place: str | Path | None) -> str | None:
    """Return a video: the given one, or the first of a folder."""
    if place is None:
        return None
    path = Path(place)
    if not path.is_dir():
        return str(path)
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in (*VIDEO_SUFFIXES, ".gif"))
    return str(found[0]) if found else None
