"""Plan and validate pairs of input and output before any work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from animegen.errors import AnimegenError
from animegen.files import check_outputs, is_inside, real_path, regular_file, user_path
from animegen.inference.targets import Format, Job, check_distinct, plan_jobs
from animegen.locks import locked, locked_file
from animegen.media.images import EXTENSIONS, list_images
from animegen.media.photos import format_of
from animegen.media.video.opening import VIDEO_SUFFIXES, WRITTEN_SUFFIXES
from animegen.media.video.sequences import frames_of_gif, is_pattern, numbered

#: Suffix of the result for videos in a folder whose own format cannot be written.
USUAL_SUFFIX = ".mkv"


@dataclass(frozen=True)
class Plan:
    """What to make: the photos one by one, then the videos.

    Attributes:
        photos: images to read and to write.
        videos: videos to read and to write.
        folder: the output, if it is a folder that is filled file by file.
    """

    photos: list[Job]
    videos: list[Job]
    folder: Path | None = None

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
    video or animated GIF         ``.mp4`` ``.mkv`` ``.mov`` ``.gif``  video
    video or animated GIF         folder, or ``frames/%05d.png``      its frames as images
    ``frames/%05d.png``, folder   ``.mp4`` ``.mkv`` ``.mov`` ``.gif``  video of the images
    ``frames/%05d.png``, folder   ``drawn/%05d.png``                  images, as frames of one video
    folder                        folder                              each image, video and animated GIF
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
        made = _plan_folder(begin, end, source, target, format_, recursive)
    else:
        regular_file(begin)
        made = _plan_file(begin, end, source, target, format_, is_video_name)
    check_distinct([*made.photos, *made.videos])
    _check_targets([photo.target for photo in made.photos], [video.target for video in made.videos], overwrite)
    return made


def is_sequence(path: Path) -> bool:
    """Tell whether a video of this name is a folder of images."""
    return is_pattern(path) or path.is_dir() or path.suffix.lower() not in (*VIDEO_SUFFIXES, *WRITTEN_SUFFIXES)


def _plan_file(begin: Path, end: Path, source: str, target: str, format_: Format, is_video_name: bool) -> Plan:
    if _is_video(begin) and not (begin.suffix.lower() == ".gif" and _is_image_name(end)):
        return Plan([], [_video_job(begin, end, is_video_name)])
    if begin.suffix.lower() not in EXTENSIONS:
        raise AnimegenError(
            f"input='{begin}' is neither an image nor a video that can be read: supported are"
            f" {', '.join(EXTENSIONS)}, {', '.join(VIDEO_SUFFIXES)}, and folders of them."
        )
    return Plan(plan_jobs(source, target, format_), [])


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


def _plan_folder(begin: Path, end: Path, source: str, target: str, format_: Format, recursive: bool) -> Plan:
    videos = [path for path in _find(begin, (*VIDEO_SUFFIXES, ".gif"), recursive) if _is_video(path)]
    # Results of an earlier run, and of one that was stopped, are not input.
    videos = [path for path in videos if not is_inside(path, end)]
    videos = [path for path in videos if not any(part.endswith(".partial") for part in path.parts)]
    chosen = set(videos)
    photos: list[Job] = []
    if not videos or any(path not in chosen for path in _find(begin, EXTENSIONS, recursive)):
        photos = [job for job in plan_jobs(source, target, format_, recursive) if job.source not in chosen]
    elif end.is_file():
        raise AnimegenError(f"input='{begin}' is a folder, so output='{end}' must be a folder, too: name one.")
    elif real_path(end) == real_path(begin):
        raise AnimegenError(f"output='{end}' is the input folder: choose another one.")
    return Plan(photos, [Job(path, end / _kept(path.relative_to(begin))) for path in videos], end)


def _kept(name: Path) -> Path:
    return name if name.suffix.lower() in WRITTEN_SUFFIXES else name.with_suffix(USUAL_SUFFIX)


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in VIDEO_SUFFIXES or (suffix == ".gif" and frames_of_gif(path) > 1)


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() != ".gif" and format_of(path) is not None


def _looks_like_folder(path: Path) -> bool:
    # A folder may have a dot in its name, but not the suffix of something else that is known.
    return path.suffix.lower() not in (*VIDEO_SUFFIXES, *EXTENSIONS)


def _find(folder: Path, suffixes: tuple[str, ...], recursive: bool) -> list[Path]:
    try:
        return list_images(folder, recursive, suffixes)
    except AnimegenError:
        return []


def check_video_output(sources: Sequence[Path], target: Path, overwrite: bool) -> None:
    """Check before any work that one video can be made of ``sources`` under the name ``target``.

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
