"""What a file is, by its content: an image, an animated image, a video, or none of them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import BinaryIO

import av
import av.error
from PIL import Image

from animegen.errors import AnimegenError
from animegen.files import existing_folder, regular_file
from animegen.media.images import EXTENSIONS, image_formats, is_heic, natural_key, visible_files

#: Formats of Pillow that can be animated. (The further frames of MPO and TIFF are no animation.)
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
#: Bytes at the start of a file; a video has a zero among them, texts have none.
_HEAD = 4096
#: Suffixes of videos, for files whose content is not known, as damaged ones.
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"),
    *(".ogv", ".3gp", ".vob"),
)


class Kind(Enum):
    """What a file is."""

    image = "image"
    animation = "animation"
    video = "video"


def kind_of(path: Path) -> Kind | None:
    """Return what a file is by its content, else by its suffix; ``None`` if it is neither an image nor a video.

    Raises:
        AnimegenError: if it does not exist or is no regular file.
    """
    regular_file(path)
    image = _image(path)
    if image is not None:
        return Kind.animation if image[0] in ANIMATED and image[1] > 1 else Kind.image
    if _is_video(path):
        return Kind.video
    if path.suffix.lower() in EXTENSIONS:
        return Kind.image
    return Kind.video if path.suffix.lower() in VIDEO_SUFFIXES else None


def is_animation(path: Path, formats: tuple[str, ...] = ANIMATED) -> bool:
    """Tell whether a file is an animated image of one of some formats, by Pillow's names."""
    regular_file(path)
    image = _image(path)
    return image is not None and image[0] in formats and image[1] > 1


def _image(path: Path) -> tuple[str, int] | None:
    """Return the format and the number of frames of an image; ``None`` if Pillow does not know it."""
    try:
        with Image.open(path, formats=image_formats()) as image:
            return image.format or "", int(getattr(image, "n_frames", 1))
    except Exception:  # Pillow's plug-ins raise nearly every kind of exception
        return None


class _Nameless:
    """A file without its name, by whose suffix FFmpeg would take any data for a video."""

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _is_video(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if b"\0" not in head or is_heic(head):
                return False
            file.seek(0)
            with av.open(_Nameless(file)) as container:
                still = container.format.name.endswith("_pipe")
                covers = [stream.disposition & stream.disposition.attached_pic for stream in container.streams.video]
                return not still and not all(covers)
    except (OSError, ValueError, av.error.FFmpegError):
        return False


def kinds_in(folder: Path, recursive: bool = True) -> dict[Path, Kind | None]:
    """Return what the visible files of a folder are, in natural order of their names.

    Raises:
        AnimegenError: if the folder does not exist, is a file, or cannot be read.
    """
    existing_folder(folder)
    files = sorted(
        visible_files(folder, recursive),
        key=lambda path: [natural_key(name) for name in path.relative_to(folder).parts],
    )
    found: dict[Path, Kind | None] = {}
    for file in files:
        try:
            found[file] = kind_of(file)
        except AnimegenError:  # a pipe, a broken link
            found[file] = None
    return found
