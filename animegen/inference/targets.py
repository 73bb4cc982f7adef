"""Which files an application reads and writes: decided, and refused, before any work begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from animegen.errors import AnimegenError, did_you_mean
from animegen.media.images import EXTENSIONS, list_images
from animegen.media.photos import KEPT_SUFFIXES, format_of


class Format(Enum):
    """In which format to write."""

    keep = "keep"
    png = "png"
    jpg = "jpg"
    webp = "webp"


@dataclass(frozen=True)
class Job:
    """One picture to make."""

    source: Path
    target: Path


def plan_jobs(source: str, target: str, format_: Format = Format.keep, recursive: bool = True) -> list[Job]:
    """Return which pictures to make from ``source`` (file or folder) and where to write them.

    Raises:
        AnimegenError: if there is nothing to do, or if a photo or another result would be replaced.
    """
    begin, end = Path(source).expanduser(), Path(target).expanduser()
    if begin.is_dir():
        jobs = _plan_folder(begin, end, format_, recursive)
    elif begin.is_file():
        jobs = [_plan_file(begin, end, format_, is_folder=end.is_dir() or target.endswith(("/", os.sep)))]
    else:
        near = did_you_mean(begin.name, os.listdir(begin.parent) if begin.parent.is_dir() else [])
        raise AnimegenError(f"input='{begin}' does not exist: name a picture or a folder.{near}")
    sources = {job.source.resolve() for job in jobs}
    claimed: dict[str, Job] = {}
    for job in jobs:
        if job.target.resolve() in sources:
            raise AnimegenError(f"The result would replace the photo '{job.target}': choose another output=.")
        # Without case, since many file systems do not tell Photo.png from photo.png.
        other = claimed.setdefault(str(job.target).casefold(), job)
        if other is not job:
            raise AnimegenError(
                f"'{other.source}' and '{job.source}' would both become '{job.target}':"
                " use format=keep, or rename one of them."
            )
    return jobs


def _plan_folder(source: Path, target: Path, format_: Format, recursive: bool) -> list[Job]:
    if target.is_file() or (not target.exists() and target.suffix.lower() in EXTENSIONS):
        raise AnimegenError(f"input='{source}' is a folder, so output='{target}' must be a folder, too: name one.")
    if target.resolve() == source.resolve():
        raise AnimegenError(f"output='{target}' is the input folder: choose another one.")
    photos = list_images(source, recursive)
    if target.resolve().is_relative_to(source.resolve()):
        # Results of an earlier run are not photos.
        photos = [photo for photo in photos if not photo.resolve().is_relative_to(target.resolve())]
    if not photos:
        raise AnimegenError(f"There are no pictures in '{source}' besides those in output='{target}'.")
    return [Job(photo, target / _renamed(photo.relative_to(source), format_)) for photo in photos]


def _plan_file(source: Path, target: Path, format_: Format, is_folder: bool) -> Job:
    if source.suffix.lower() not in EXTENSIONS:
        raise AnimegenError(
            f"input='{source}' is not a picture that can be read: supported are {', '.join(EXTENSIONS)},"
            " and folders of them."
        )
    if is_folder or not target.suffix:
        return Job(source, target / _renamed(Path(source.name), format_))
    if format_of(target) is None:
        raise AnimegenError(
            f"output='{target}' has no suffix of a picture: use one of {', '.join(KEPT_SUFFIXES)}, or end the name"
            " of a folder with a slash."
        )
    if format_ is not Format.keep and format_of(target) != format_of(f"x.{format_.value}"):
        raise AnimegenError(f"output='{target}' and format={format_.value} contradict each other: leave format= out.")
    return Job(source, target)


def _renamed(name: Path, format_: Format) -> Path:
    if format_ is not Format.keep:
        return name.with_suffix(f".{format_.value}")
    kept = name.suffix.lower() in KEPT_SUFFIXES and format_of(name) is not None
    return name if kept else name.with_suffix(".png")


def check_targets(jobs: Sequence[Job], overwrite: bool) -> None:
    """Check before any work that the results can be written where they belong.

    Raises:
        AnimegenError: if some exist and may not be replaced, or a folder cannot be written.
    """
    existing = [job.target for job in jobs if job.target.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more of {len(jobs)}" if len(existing) > 1 else ""
        raise AnimegenError(f"'{existing[0]}'{more} exists: choose another output= or set overwrite=true.")
    for folder in {job.target.parent for job in jobs}:
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "cannot be written to" if place.is_dir() else "is not a folder"
            raise AnimegenError(f"'{folder}' cannot take the results, since '{place}' {what}: choose another output=.")
