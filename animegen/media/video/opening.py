"""Films by their name: what it ends with says how to read or write them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from animegen.media.video.encoding import CONTAINERS, Encoding
from animegen.media.video.frames import FrameReader, FrameWriter, VideoInfo
from animegen.media.video.reader import VideoReader
from animegen.media.video.sequences import GifWriter, SequenceReader, SequenceWriter, is_pattern
from animegen.media.video.writer import VideoWriter

#: Suffixes by which films are found in folders. Any other file may be named and is tried.
FILM_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".wmv", ".flv"),
    *(".ogv", ".3gp"),
)
#: Suffixes of films that can be written.
WRITTEN_SUFFIXES = (*CONTAINERS, ".gif")


def open_video(path: str | Path, fps: Fraction | None = None) -> FrameReader:
    """Open a film for reading.

    Args:
        path: a film, an animated GIF, a folder of pictures, or a pattern like ``frames/%05d.png``.
        fps: rate of pictures; a film has its own.

    Raises:
        AnimegenError: if it is missing, or holds no frame that can be read.
    """
    path = Path(path)
    if path.is_dir() or is_pattern(path):
        return SequenceReader(path, fps)
    return VideoReader(path)


def create_video(
    path: str | Path,
    like: VideoInfo,
    encoding: Encoding | None = None,
    copy_from: str | Path | None = None,
    suffix: str = ".png",
    overwrite: bool = True,
) -> FrameWriter:
    """Begin to write a film.

    Args:
        path: ``.mp4``, ``.m4v``, ``.mov``, ``.mkv``, ``.gif``; a pattern like ``frames/%05d.png``; or, with any other
            or no suffix, a folder for pictures.
        like: size, rate, time base and colour of the film.
        encoding: how to encode; GIFs and pictures need none.
        copy_from: a film whose sound and subtitles are copied, where the format has any.
        suffix: format of the images in a folder.
        overwrite: replace what has the name, even if it was made meanwhile.

    Raises:
        AnimegenError: for options that do not fit, or a folder that cannot be written.
    """
    path = Path(path)
    if is_pattern(path) or path.suffix.lower() not in WRITTEN_SUFFIXES:
        return SequenceWriter(path, suffix, overwrite)
    if path.suffix.lower() == ".gif":
        return GifWriter(path, like, overwrite)
    return VideoWriter(path, like, encoding, copy_from, overwrite=overwrite)
