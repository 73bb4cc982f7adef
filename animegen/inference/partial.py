"""A film that is being made, on disk: its finished segments, so that a run that was stopped can go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.locks import LOCK, locked
from animegen.media.video.remux import Segment

MANIFEST = "animegen.json"


@dataclass(frozen=True)
class Finished:
    """A finished segment. Times are in seconds of the film.

    Attributes:
        file: its name in the folder.
        frames: how many it holds.
        start: when its first frame appears.
        last: when its last frame appears.
        end: when that ceases to be shown.
        source: number of the film's frame at which the next segment begins; ``None`` where a frame makes a frame.
        upto: when that frame appears; ``None`` after the last segment.
    """

    file: str
    frames: int
    start: Fraction
    last: Fraction
    end: Fraction
    source: int | None = None
    upto: Fraction | None = None


@contextmanager
def begun(target: Path, settings: dict[str, Any], note: Callable[[str], None]) -> Iterator[Partial]:
    """Yield the beginning of the film ``target``, found or made, which is this command's alone as long as it lasts.

    Args:
        target: the output.
        settings: all that the result depends on.
        note: gets a sentence if an earlier command began with the film.

    Raises:
        AnimegenError: if the folder cannot be written, holds something else, or another command is making this film.
    """
    folder = target.with_name(f"{target.name}.partial")
    with locked(folder, tidy=True):
        partial = Partial(folder, settings)
        if partial.begun_anew:
            note(f"'{folder}' was begun with another input or other settings, and is begun anew.")
        elif partial.finished:
            note(f"'{target}' goes on after frame {partial.frames}.")
        yield partial


class Partial:
    """The folder ``<output>.partial`` with a manifest of what was asked for, the shots, and the finished segments.

    To be had from :func:`begun`, which keeps other commands away from it.

    Args:
        folder: where the segments lie; anything in it that is not finished is removed.
        settings: all that the result depends on. A folder that was begun with others is begun anew.

    Attributes:
        begun_anew: whether an earlier beginning was thrown away.
        shots: (first frame, stop) of each shot, or ``None`` if they are not known yet.
        finished: the segments that are done.
        smooth: first frames of the shots whose held drawings are spread over their time.
        flashes: numbers of the frames with which a flash begins, and the picture after it.
        problems: what could not be read in the part of the film that they show.

    Raises:
        AnimegenError: if the folder cannot be written, or holds something else.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self.settings = json.loads(json.dumps(settings, default=str))
        self.shots: list[tuple[int, int]] | None = None
        self.finished: list[Finished] = []
        self.problems: list[str] = []
        self.smooth: list[int] = []
        self.flashes: list[int] = []
        earlier = self._read()
        self.begun_anew = earlier is not None and earlier.get("settings") != self.settings
        if earlier is not None and not self.begun_anew:
            self.shots = None if earlier["shots"] is None else [(first, stop) for first, stop in earlier["shots"]]
            self.problems, self.smooth = earlier["problems"], earlier.get("smooth", [])
            self.flashes = earlier.get("flashes", [])
            for entry in earlier["finished"]:
                times = {key: Fraction(entry[key]) for key in ("start", "last", "end")}
                upto = None if entry.get("upto") is None else Fraction(entry["upto"])
                found = Finished(entry["file"], entry["frames"], **times, source=entry.get("source"), upto=upto)
                self.finished.append(found)
        kept = {LOCK, MANIFEST, *(segment.file for segment in self.finished)}
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in kept:  # begun and not finished
                path.unlink()
        self.save()

    @property
    def frames(self) -> int:
        """The number of frames that are done."""
        return sum(segment.frames for segment in self.finished)

    @property
    def segments(self) -> list[Segment]:
        """The finished segments for :func:`~animegen.media.video.remux.join`."""
        return [Segment(self.folder / segment.file, segment.start, segment.end) for segment in self.finished]

    def next_file(self) -> Path:
        """Return where to write the next segment."""
        return self.folder / f"{len(self.finished) + 1:05}.mp4"

    def add(self, segment: Finished, problems: list[str]) -> None:
        """Note that a segment is finished, and what could not be read up to its end."""
        self.finished.append(segment)
        self.problems = list(dict.fromkeys([*self.problems, *problems]))
        self.save()

    def save(self) -> None:
        """Write the manifest."""
        content = {
            "settings": self.settings,
            "shots": self.shots,
            "smooth": self.smooth,
            "flashes": self.flashes,
            "problems": self.problems,
            "finished": [asdict(segment) for segment in self.finished],
        }
        with completed(self.folder / MANIFEST) as hidden:
            hidden.write_text(json.dumps(content, indent=1, default=str) + "\n")

    def remove(self) -> None:
        """Remove the folder, when the film is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> dict[str, Any] | None:
        if not self.folder.exists():
            return None
        try:
            return json.loads((self.folder / MANIFEST).read_text())
        except (OSError, ValueError) as error:
            if self.folder.is_dir() and set(os.listdir(self.folder)) <= {LOCK, MANIFEST}:
                return None
            raise AnimegenError(
                f"'{self.folder}' is not the beginning of a film of animegen: remove it, or choose another output=."
            ) from error
