"""Plan and validate pairs of input and output before any work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from animegen.errors import AnimegenError
from animegen.files import check_outputs, real_path, regular_file, user_path
from animegen.inference.targets import (
    Format,
    Job,
    check_distinct,
    files_to_read,
    folder_jobs,
    plan_jobs,
    set_apart,
)
from animegen.locks import locked, locked_file
from animegen.media.images import EXTENSIONS, format_of
from animegen.media.kinds import VIDEO_SUFFIXES, Kind, kind_of
from animegen.media.video.animations import ANIMATIONS
from animegen.media.video.encoding import CONTAINERS
from animegen.media.video.opening import WRITTEN_SUFFIXES
from animegen.media.video.sequences import is_pattern, numbered

#: Files that are named when they are left out.
NAMED = 5
#: Suffix of the result for videos in a folder whose own format cannot be written.
USUAL_SUFFIX = ".mkv"


@dataclass(frozen=True)
class Plan:
    """What to make: the photos one by one, then the videos.

    Attributes:
        photos: images to read and to write.
        videos: videos to read and to write.
        folder: the output, if it is a folder that is filled file by file.
        notes: a sentence for what is left out.
    """

    photos: list[Job]
    videos: list[Job]
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other commands away from the results while the block runs.

        A single video is held by its unfinished shots, see :func:`animegen.inference.partial.begun`.

        Raises:
            AnimegenError: if another command writes to the same place.
        """
        if self.folder is not None:
            lock = locked(self.folder, tidy=True)
        else:
            lock = locked_file(self.photos[0].target) if self.photos else nullcontext()
        with lock:
            yield


def plan(source: str, target: str, format_: Format, recursive: bool, overwrite: bool) -> Plan:
    """Return what to make of ``source`` and where to write it.

    ============================  ==================================  =============================
    source                        target                              result
    ============================  ==================================  =============================
    image                         image, or folder                    image
    video or animated image       ``.mp4`` ``.mkv`` ``.mov`` ``.gif``  video
    video or animated image       folder, or ``frames/%05d.png``      its frames as images
    ``frames/%05d.png``, folder   ``.mp4`` ``.mkv`` ``.mov`` ``.gif``  video of the images
    ``frames/%05d.png``, folder   ``drawn/%05d.png``                  images, as frames of one video
    folder                        folder                              each image, video and animation
    ============================  ==================================  =============================

    Raises:
        AnimegenError: if there is nothing to do, or if something that exists would be replaced.
    """
    begin, end = user_path("input", source), user_path("output", target)
    is_video_name = end.suffix.lower() in WRITTEN_SUFFIXES and not end.is_dir()
    if is_pattern(begin):
        numbered(begin)
        made = Plan([], [_video_job(begin, end, is_video_name)])
    elif begin.is_dir() and (is_video_name or is_pattern(end)):
        made = Plan([], [_video_job(begin, end, is_video_name)])
    elif begin.is_dir():
        made = _plan_folder(begin, end, format_, recursive)
    else:
        regular_file(begin)
        made = _plan_file(begin, end, source, target, format_, is_video_name)
    check_distinct([*made.photos, *made.videos])
    _check_targets([photo.target for photo in made.photos], [video.target for video in made.videos], overwrite)
    return made


def is_sequence(path: Path) -> bool:
    """Return whether a video of this name is a folder of images."""
    if path.is_file():
        return False
    return is_pattern(path) or path.is_dir() or path.suffix.lower() not in (*VIDEO_SUFFIXES, *WRITTEN_SUFFIXES)


def _plan_file(begin: Path, end: Path, source: str, target: str, format_: Format, is_video_name: bool) -> Plan:
    kind = kind_of(begin)
    if kind is None:
        raise AnimegenError(
            f"input='{begin}' is neither an image nor a video that can be read: supported are"
            f" {', '.join(EXTENSIONS)}, {', '.join(VIDEO_SUFFIXES)}, and folders of them."
        )
    first_only = kind is Kind.animation and not is_video_name and format_of(end) is not None and not is_pattern(end)
    if kind is not Kind.image and not first_only:
        return Plan([], [_video_job(begin, end, is_video_name)])
    note = f"'{begin}' is animated, and '{end}' is one image: its first frame. A video or a folder gets all of them."
    return Plan(plan_jobs(source, target, format_), [], notes=(note,) if first_only else ())


def _video_job(source: Path, target: Path, is_video_name: bool) -> Job:
    image_format = format_of(target)
    if is_pattern(target):
        if image_format is None:
            raise AnimegenError(f"output='{target}' has no suffix of an image: use .png, .jpg or .webp.")
    elif not is_video_name and target.suffix and not target.is_dir() and not _looks_like_folder(target):
        raise AnimegenError(
            f"output='{target}' has no suffix of a video that can be written: use {', '.join(WRITTEN_SUFFIXES)}, or a"
            " folder for its frames as images."
        )
    return Job(source, target)


def _plan_folder(begin: Path, end: Path, format_: Format, recursive: bool) -> Plan:
    found = files_to_read(begin, end, recursive)
    photos = folder_jobs([path for path, kind in found.items() if kind is Kind.image], begin, end, format_)
    videos = [
        Job(path, end / _kept(path.relative_to(begin), kind))
        for path, kind in found.items()
        if kind in (Kind.animation, Kind.video)
    ]
    others = [path.relative_to(begin).as_posix() for path, kind in found.items() if kind is None]
    named = ", ".join([*others[:NAMED], *([f"and {len(others) - NAMED} more"] if len(others) > NAMED else [])])
    notes = (f"Neither images nor videos that can be read, and left out: {named}.",) if others else ()
    return Plan(photos, set_apart(videos, end, begin), end, notes)


def _kept(name: Path, kind: Kind | None) -> Path:
    suffix = name.suffix.lower()
    if kind is Kind.animation:
        return name if suffix in ANIMATIONS else name.with_suffix(".apng" if suffix == ".png" else ".webp")
    return name if suffix in CONTAINERS and suffix != ".webm" else name.with_suffix(USUAL_SUFFIX)


def _looks_like_folder(path: Path) -> bool:
    # A folder may have a dot in its name, but not the suffix of something else that is known.
    return path.suffix.lower() not in (*VIDEO_SUFFIXES, *EXTENSIONS)


def check_video_output(sources: Sequence[Path], target: Path, overwrite: bool) -> None:
    """Check before any computation that a video ``target`` can be made from ``sources``.

    Raises:
        AnimegenError: if the name is neither of a video nor of a folder, or something would be replaced.
    """
    known = target.suffix.lower() in (*VIDEO_SUFFIXES, *EXTENSIONS) and not is_pattern(target)
    if target.suffix.lower() not in WRITTEN_SUFFIXES and known and not target.is_dir():
        raise AnimegenError(
            f"output='{target}' is neither a video that can be written nor a folder: use"
            f" {', '.join(WRITTEN_SUFFIXES)}, or a folder."
        )
    if real_path(target) in map(real_path, sources):
        raise AnimegenError(f"The result would replace the input '{target}': choose another output=.")
    _check_targets([], [target], overwrite)


def _check_targets(photos: Sequence[Path], videos: Sequence[Path], overwrite: bool) -> None:
    files = [video for video in videos if video.suffix.lower() in WRITTEN_SUFFIXES and not is_pattern(video)]
    check_outputs([*photos, *files], overwrite)
    check_outputs([_first_place(video) for video in videos if video not in files], overwrite, folders=True)


def _first_place(target: Path) -> Path:
    """Return what must not exist before a video becomes images: the first image, or the folder if it holds any file."""
    if is_pattern(target):
        return next(iter(numbered(target, must_exist=False)), target)
    if target.is_dir() and any(not path.name.startswith(".") for path in target.iterdir()):
        return target
    return target / "000001.png"
