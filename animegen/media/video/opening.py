"""Readers and writers of videos, selected by the suffix of the name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from animegen.media.kinds import is_animation
from animegen.media.photos import keeps_alpha
from animegen.media.video.animations import ANIMATIONS, AnimationReader, AnimationWriter
from animegen.media.video.encoding import CONTAINERS, Encoding
from animegen.media.video.frames import FrameReader, FrameWriter, VideoInfo
from animegen.media.video.reader import VideoReader
from animegen.media.video.sequences import SequenceReader, SequenceWriter, is_pattern
from animegen.media.video.writer import VideoWriter

#: Suffixes of videos that can be written.
WRITTEN_SUFFIXES = (*CONTAINERS, *ANIMATIONS)


def open_video(
    path: str | Path, fps: Fraction | None = None, deinterlace: bool = False, straight: bool = False
) -> FrameReader:
    """Open a video for reading.

    Args:
        path: a video, an animated image, a folder of images, or a pattern like ``frames/%05d.png``.
        fps: rate of images; a video has its own.
        deinterlace: make whole frames of interlaced ones.
        straight: keep colours and alpha of transparent frames apart (:attr:`Original.alpha`), in place of showing them
            on white.

    Raises:
        AnimegenError: if it is missing, or holds no frame that can be read.
    """
    path = Path(path)
    if path.is_dir() or is_pattern(path):
        return SequenceReader(path, fps, straight)
    if is_animation(path, ("WEBP", "AVIF")):
        return AnimationReader(path, straight)
    if straight and is_animation(path) and (reader := AnimationReader(path, straight)).info.alpha:
        return reader
    return VideoReader(path, deinterlace, straight and not is_animation(path))


def images_keep(path: Path, suffix: str) -> tuple[bool, bool]:
    """Tell what :func:`create_video` keeps in an animated image, or a folder of images with this suffix.

    Returns:
        Whether it keeps more than eight bits per colour, and transparency.
    """
    if path.suffix.lower() in ANIMATIONS and not is_pattern(path):
        return False, True
    image = path if is_pattern(path) else path / f"x{suffix}"
    return image.suffix.lower() == ".png", keeps_alpha(image)


def create_video(
    path: str | Path,
    like: VideoInfo,
    encoding: Encoding | None = None,
    copy_from: str | Path | None = None,
    suffix: str = ".png",
    overwrite: bool = True,
) -> FrameWriter:
    """Open a video for writing.

    Args:
        path: its suffix is one of :data:`WRITTEN_SUFFIXES`; or a pattern like ``frames/%05d.png``; or, with any other
            or no suffix, a folder for images.
        like: size, rate, time base and colour of the video.
        encoding: how to encode; GIFs and images need none.
        copy_from: a video whose sound and subtitles are copied, where the format has any.
        suffix: format of the images in a folder.
        overwrite: replace what has the name, even if it was made meanwhile.

    Raises:
        AnimegenError: for options that do not fit, or a folder that cannot be written.
    """
    path = Path(path)
    if is_pattern(path) or path.suffix.lower() not in WRITTEN_SUFFIXES:
        return SequenceWriter(path, suffix, overwrite)
    if path.suffix.lower() in ANIMATIONS:
        return AnimationWriter(path, like, overwrite)
    return VideoWriter(path, like, encoding, copy_from, overwrite=overwrite)
