"""Input and output files of a command, checked before any work begins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from animegen.config.common import ImageFormat as Format
from animegen.errors import AnimegenError
from animegen.files import is_inside, real_path, regular_file, user_path
from animegen.media.images import EXTENSIONS, format_of
from animegen.media.kinds import Kind, kind_of, kinds_in
from animegen.media.photos import KEPT_SUFFIXES


@dataclass(frozen=True)
class Job:
    """One image to make."""

    source: Path
    target: Path


def plan_jobs(source: str, target: str, format_: Format = Format.keep, recursive: bool = True) -> list[Job]:
    """Return which images to make from ``source`` (file or folder) and where to write them.

    Raises:
        AnimegenError: if there is nothing to do, or if a photo or another result would be replaced.
    """
    begin, end = user_path("input", source), user_path("output", target)
    if begin.is_dir():
        found = files_to_read(begin, end, recursive)
        jobs = folder_jobs([path for path, kind in found.items() if kind is Kind.image], begin, end, format_)
    else:
        regular_file(begin)
        jobs = [_plan_file(begin, end, format_, is_folder=end.is_dir() or target.endswith(("/", os.sep)))]
    check_distinct(jobs)
    return jobs


def files_to_read(source: Path, target: Path, recursive: bool) -> dict[Path, Kind | None]:
    """Return the files of an input folder, except results of earlier and interrupted runs.

    Raises:
        AnimegenError: if the output is no other folder, or there is no image and no video.
    """
    if target.is_file() or (not target.exists() and target.suffix.lower() in EXTENSIONS):
        raise AnimegenError(f"input='{source}' is a folder, so output='{target}' must be a folder, too: name one.")
    if real_path(target) == real_path(source):
        raise AnimegenError(f"output='{target}' is the input folder: choose another one.")
    found = kinds_in(source, recursive)
    if is_inside(target, source):
        found = {path: kind for path, kind in found.items() if not is_inside(path, target)}
    found = {p: kind for p, kind in found.items() if not any(part.endswith(".partial") for part in p.parts)}
    if not any(found.values()):
        beside = f" besides those in output='{target}'" if is_inside(target, source) else ""
        deeper = "" if recursive else ", and folders inside it are not searched"
        inside = f"only {len(found)} other files" if found else "nothing"
        raise AnimegenError(
            f"There are no images and no videos in '{source}'{beside}, {inside}{deeper}: name another folder."
        )
    return found


def folder_jobs(photos: Sequence[Path], source: Path, target: Path, format_: Format = Format.keep) -> list[Job]:
    """Return where to write the images of a folder."""
    jobs = [Job(photo, target / _renamed(photo.relative_to(source), format_)) for photo in photos]
    return jobs if format_ is not Format.keep else set_apart(jobs, target, source)


def set_apart(jobs: Sequence[Job], target: Path, source: Path) -> list[Job]:
    """Return jobs whose results differ in name: one that has to change its suffix adds it if the name is taken."""
    own = {job.source: target / job.source.relative_to(source) for job in jobs}
    taken = {str(job.target).casefold() for job in jobs if job.target == own[job.source]}
    apart = []
    for job in jobs:
        if job.target != own[job.source]:
            if str(job.target).casefold() in taken:
                job = Job(job.source, own[job.source].with_name(job.source.name + job.target.suffix))
            taken.add(str(job.target).casefold())
        apart.append(job)
    return apart


def check_distinct(jobs: Sequence[Job]) -> None:
    """Check that no result replaces an input or another result.

    Raises:
        AnimegenError: if one does.
    """
    sources = {real_path(job.source) for job in jobs}
    claimed: dict[str, Job] = {}
    for job in jobs:
        if real_path(job.target) in sources:
            raise AnimegenError(f"The result would replace the input '{job.target}': choose another output=.")
        # Without case, since many file systems do not distinguish Photo.png from photo.png.
        other = claimed.setdefault(str(job.target).casefold(), job)
        if other is not job:
            raise AnimegenError(
                f"'{other.source}' and '{job.source}' would both become '{job.target}':"
                " use format=keep, or rename one of them."
            )


def _plan_file(source: Path, target: Path, format_: Format, is_folder: bool) -> Job:
    if kind_of(source) not in (Kind.image, Kind.animation):
        raise AnimegenError(
            f"input='{source}' is not an image that can be read: supported are {', '.join(EXTENSIONS)},"
            " and folders of them."
        )
    if is_folder or not target.suffix:
        return Job(source, target / _renamed(Path(source.name), format_))
    if format_of(target) is None:
        raise AnimegenError(
            f"output='{target}' has no suffix of an image: use one of {', '.join(KEPT_SUFFIXES)}, or end the name"
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
