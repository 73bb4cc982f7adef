"""The finished segments of an unfinished video on disk, so that a stopped command can resume."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from animegen.errors import AnimegenError
from animegen.files import completed, read_text, translate_io_errors
from animegen.locks import LOCK, locked
from animegen.media.video.remux import Segment

MANIFEST = "animegen.json"
#: Names of the files in the folder besides the manifest and the lock: segments and incomplete files.
_OWN = re.compile(r"[0-9]{5,}\.(mp4|nut|mov|webm)|\.[0-9a-f]{32}(\.[a-z0-9]+)?")
#: Bytes that are read at a time.
_BLOCK = 2**22
_KEYS = {"settings", "shots", "smooth", "flashes", "problems", "finished"}


@dataclass(frozen=True)
class Finished:
    """A finished segment. Times are in seconds of the video.

    Attributes:
        file: file name in the folder.
        frames: number of frames.
        start: time of its first frame.
        last: time of its last frame.
        end: end of its last frame.
        source: number of the video's frame at which the next segment begins; ``None`` where a frame makes a frame.
        upto: time of that frame; ``None`` after the last segment.
        checksum: CRC-32 of the file.
    """

    file: str
    frames: int
    start: Fraction
    last: Fraction
    end: Fraction
    source: int | None = None
    upto: Fraction | None = None
    checksum: int | None = None


@contextmanager
def begun(target: Path, settings: dict[str, Any], note: Callable[[str], None]) -> Iterator[Partial]:
    """Yield the unfinished video ``target``, found or created, and keep other commands away from it.

    Args:
        target: the output.
        settings: all that the result depends on.
        note: gets a sentence if an earlier command began with the video.

    Raises:
        AnimegenError: if the folder cannot be written, holds something else, or another command makes this video.
    """
    place = Path(os.path.abspath(target))  # `.` has no name
    if not place.name:
        raise AnimegenError(f"output='{target}' has no name: choose a folder inside it.")
    folder = place.with_name(f"{place.name}.partial")
    with locked(folder, tidy=True):
        with translate_io_errors(folder, "written"):
            partial = Partial(folder, settings)
        if partial.restarted:
            note(f"'{folder}' was made from another input or with other settings: the video is started again.")
        elif partial.damaged is not None:
            note(f"'{partial.damaged}' is damaged: it and what follows is drawn again.")
        elif partial.finished:
            note(f"'{target}' is resumed after frame {partial.frames}.")
        yield partial


class Partial:
    """The folder ``<output>.partial`` with a manifest of the settings, the shots, and the finished segments.

    Created by :func:`begun`, which keeps other commands away from it.

    Args:
        folder: folder of the segments. Unfinished ones are removed; foreign files are kept.
        settings: everything that the result depends on. Segments with other settings are removed.

    Attributes:
        restarted: whether the segments of an earlier command were removed.
        damaged: the first segment that is missing or damaged; it and those after it were removed.
        shots: (first frame, stop) of each shot, or ``None`` if they are not known yet.
        finished: the finished segments.
        smooth: first frames of the shots in which motion is spread over held drawings.
        flashes: numbers of the frames with which a flash begins, and the image after it.
        problems: damage in the finished part of the video.

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
        self.damaged: Path | None = None
        earlier = self._read()
        self.restarted = earlier is not None and earlier["settings"] != self.settings
        if earlier is not None and not self.restarted:
            self._resume(earlier)
        self._remove_all_but({segment.file for segment in self.finished})
        self.save()

    def _resume(self, earlier: dict[str, Any]) -> None:
        self.shots = None if earlier["shots"] is None else [(first, stop) for first, stop in earlier["shots"]]
        self.problems, self.smooth, self.flashes = (earlier[key] for key in ("problems", "smooth", "flashes"))
        for entry in earlier["finished"]:
            times = {key: Fraction(entry[key]) for key in ("start", "last", "end")}
            segment = Finished(**{**entry, **times, "upto": None if entry["upto"] is None else Fraction(entry["upto"])})
            if _checksum(self.folder / segment.file) != segment.checksum:
                self.damaged = self.folder / segment.file
                return
            self.finished.append(segment)

    @property
    def frames(self) -> int:
        """The number of frames that are done."""
        return sum(segment.frames for segment in self.finished)

    @property
    def segments(self) -> list[Segment]:
        """The finished segments for :func:`~animegen.media.video.remux.join`."""
        return [Segment(self.folder / segment.file, segment.start, segment.end) for segment in self.finished]

    def file(self, number: int, suffix: str) -> Path:
        """Return where to write a segment; numbers begin with 1."""
        return self.folder / f"{number:05}{suffix}"

    def add(self, segment: Finished, problems: list[str]) -> None:
        """Note that a segment is finished, and what could not be read up to its end."""
        self.finished.append(replace(segment, checksum=_checksum(self.folder / segment.file)))
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
        """Remove the folder when the video is complete; files of others in it stay, and then the folder, too."""
        with suppress(OSError):  # the video is complete: remaining files are harmless
            self._remove_all_but(set())
            for name in (MANIFEST, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    def _remove_all_but(self, kept: set[str]) -> None:
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if path.name not in kept and _OWN.fullmatch(path.name):
                path.unlink()

    def _read(self) -> dict[str, Any] | None:
        if not self.folder.exists() or set(os.listdir(self.folder)) <= {LOCK}:
            return None
        try:
            found = json.loads(read_text(self.folder / MANIFEST))
            if not isinstance(found, dict) or not found.keys() >= _KEYS:
                raise ValueError(f"{MANIFEST} lacks {', '.join(sorted(_KEYS))}")
            return found
        except (AnimegenError, ValueError) as error:
            if set(os.listdir(self.folder)) <= {LOCK, MANIFEST}:
                return None
            raise AnimegenError(
                f"'{self.folder}' is not an unfinished video of animegen: remove it, or choose another output=."
            ) from error


def _checksum(path: Path) -> int | None:
    """Return the CRC-32 of a file, ``None`` if there is none."""
    value = 0
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                value = zlib.crc32(block, value)
    except FileNotFoundError:
        return None
    return value
