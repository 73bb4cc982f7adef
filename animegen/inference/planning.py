"""Which pictures and films are made of which: decided, and refused, before any work begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from animegen.errors import AnimegenError, did_you_mean
from animegen.inference.targets import Format, Job, check_targets, plan_jobs
from animegen.media.images import EXTENSIONS, list_images
from animegen.media.photos import format_of
from animegen.media.video.opening import FILM_SUFFIXES, WRITTEN_SUFFIXES
from animegen.media.video.sequences import frames_of_gif, is_pattern, numbered

#: What a film is called that is found in a folder and whose own format is not written.
USUAL_SUFFIX = ".mkv"


@dataclass(frozen=True)
class Plan:
    """What to make: the photos one by one, then the films."""

    photos: list[Job]
    films: list[Job]


def plan(source: str, target: str, format_: Format, recursive: bool, overwrite: bool) -> Plan:
    """Return what to make of ``source`` and where to write it.

    ============================  ==================================  =============================
    source                        target                              result
    ============================  ==================================  =============================
    picture                       picture, or folder                  picture
    film or animated GIF          ``.mp4`` ``.mkv`` ``.mov`` ``.gif``  film
    film or animated GIF          folder, or ``frames/%05d.png``      its frames as pictures
    ``frames/%05d.png``, folder   ``.mp4`` ``.mkv`` ``.mov`` ``.gif``  film of the pictures
    ``frames/%05d.png``, folder   ``drawn/%05d.png``                  pictures, as frames of one film
    folder                        folder                              each picture, film and animated GIF
    ============================  ==================================  =============================

    Raises:
        AnimegenError: if there is nothing to do, or if something that exists would be replaced.
    """
    begin, end = Path(source).expanduser(), Path(target).expanduser()
    is_film_name = end.suffix.lower() in WRITTEN_SUFFIXES and not end.is_dir()
    if is_pattern(begin):
        numbered(begin)
        made = Plan([], [_film(begin, end, is_film_name)])
    elif begin.is_dir() and (is_film_name or is_pattern(end)):
        made = Plan([], [_film(begin, end, is_film_name)])
    elif begin.is_dir():
        made = _plan_folder(begin, end, source, target, format_, recursive)
    elif begin.is_file() and _is_film(begin) and not (begin.suffix.lower() == ".gif" and _is_picture_name(end)):
        made = Plan([], [_film(begin, end, is_film_name)])
    elif begin.is_file() and begin.suffix.lower() not in EXTENSIONS:
        raise AnimegenError(
            f"input='{begin}' is neither a picture nor a film that can be read: supported are"
            f" {', '.join(EXTENSIONS)}, {', '.join(FILM_SUFFIXES)}, and folders of them."
        )
    elif begin.exists():
        made = Plan(plan_jobs(source, target, format_, recursive), [])
    else:
        near = did_you_mean(begin.name, os.listdir(begin.parent) if begin.parent.is_dir() else [])
        raise AnimegenError(f"input='{begin}' does not exist: name a picture, a film or a folder.{near}")
    _check(made, overwrite)
    return made


def is_sequence(path: Path) -> bool:
    """Tell whether a film of this name is a folder of pictures."""
    return is_pattern(path) or path.is_dir() or path.suffix.lower() not in (*FILM_SUFFIXES, *WRITTEN_SUFFIXES)


def _film(source: Path, target: Path, is_film_name: bool) -> Job:
    picture = format_of(target)
    if is_pattern(target):
        if picture is None:
            raise AnimegenError(f"output='{target}' has no suffix of a picture: use .png, .jpg or .webp.")
    elif not is_film_name and target.suffix and not target.is_dir() and not _looks_like_folder(target):
        raise AnimegenError(
            f"output='{target}' has no suffix of a film that can be written: use {', '.join(WRITTEN_SUFFIXES)}, or a"
            " folder for its frames as pictures."
        )
    return Job(source, target)


def _plan_folder(begin: Path, end: Path, source: str, target: str, format_: Format, recursive: bool) -> Plan:
    films = [path for path in _find(begin, (*FILM_SUFFIXES, ".gif"), recursive) if _is_film(path)]
    # Results of an earlier run, and of one that was stopped, are not input.
    inside = end.resolve()
    films = [path for path in films if not path.resolve().is_relative_to(inside)]
    films = [path for path in films if not any(part.endswith(".partial") for part in path.parts)]
    chosen = set(films)
    photos: list[Job] = []
    if not films or any(path not in chosen for path in _find(begin, EXTENSIONS, recursive)):
        photos = [job for job in plan_jobs(source, target, format_, recursive) if job.source not in chosen]
    elif end.is_file():
        raise AnimegenError(f"input='{begin}' is a folder, so output='{end}' must be a folder, too: name one.")
    elif inside == begin.resolve():
        raise AnimegenError(f"output='{end}' is the input folder: choose another one.")
    return Plan(photos, [Job(path, end / _kept(path.relative_to(begin))) for path in films])


def _kept(name: Path) -> Path:
    return name if name.suffix.lower() in WRITTEN_SUFFIXES else name.with_suffix(USUAL_SUFFIX)


def _is_film(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in FILM_SUFFIXES or (suffix == ".gif" and frames_of_gif(path) > 1)


def _is_picture_name(path: Path) -> bool:
    return path.suffix.lower() != ".gif" and format_of(path) is not None


def _looks_like_folder(path: Path) -> bool:
    # A folder may have a dot in its name, but not the suffix of something else that is known.
    return path.suffix.lower() not in (*FILM_SUFFIXES, *EXTENSIONS)


def _find(folder: Path, suffixes: tuple[str, ...], recursive: bool) -> list[Path]:
    try:
        return list_images(folder, recursive, suffixes)
    except AnimegenError:
        return []


def _check(made: Plan, overwrite: bool) -> None:
    jobs = [*made.photos, *made.films]
    sources = {job.source.resolve() for job in jobs}
    claimed: dict[str, Job] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise AnimegenError(f"The result would replace the input '{job.target}': choose another output=.")
        other = claimed.setdefault(str(job.target).casefold(), job)
        if other is not job:
            raise AnimegenError(f"'{other.source}' and '{job.source}' would both become '{job.target}': rename one.")
    films = [Job(film.source, place) for film in made.films for place in _places(film.target)]
    check_targets([*made.photos, *films], overwrite)


def _places(target: Path) -> list[Path]:
    """Return what must not exist yet: of a film of pictures an earlier one, or a folder with something inside."""
    if is_pattern(target):
        return numbered(target, must_exist=False)[:1] or [target]
    if is_sequence(target):
        return [target] if target.is_dir() and any(target.iterdir()) else [target / "000001.png"]
    return [target]
