"""Videos as folders of numbered images."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.files import completed, exists_error, hidden_name, publish_all, publish_folder, real_path
from animegen.locks import locked_file
from animegen.media.images import format_of, list_images, natural_key, read_image
from animegen.media.photos import Photo, keeps_alpha, read_photo, write_photo
from animegen.media.video.frames import (
    DEFAULT_RATE,
    RGB,
    TRANSPARENT,
    Colour,
    FrameReader,
    FrameWriter,
    Original,
    VideoInfo,
)
from animegen.media.video.writer import writing

_NUMBER = re.compile(r"%0?(\d*)d")


class SequenceReader(FrameReader):
    """A folder of images as a video: in natural order of their names, at a constant rate.

    Images that cannot be read, or differ in size from the first, are skipped and reported; they leave gaps in time.

    Args:
        path: a folder, or a pattern like ``frames/%05d.png`` for the files whose names have a number there.
        fps: images per second.
        straight: frames have their colours and their alpha (:attr:`Original.alpha`), and are not shown on white.

    Raises:
        AnimegenError: if there are no images, or the first one is broken.
    """

    straight = False

    def __init__(self, path: str | Path, fps: Fraction | None = None, straight: bool = False) -> None:
        self.path, self.straight = Path(path), straight
        self.files = numbered(self.path) if is_pattern(self.path) else list_images(self.path, recursive=False)
        fps = fps or DEFAULT_RATE
        self.problems: list[str] = []
        self.end = Fraction(0)
        first = read_photo(self.files[0])
        _, height, width = first.pixels.shape
        self.info = VideoInfo(
            width,
            height,
            fps,
            time_base=1 / fps,
            duration=len(self.files) / fps,
            frames=len(self.files),
            codec=self.files[0].suffix.lower()[1:],
            colour=Colour(RGB, full_range=True),
            alpha=straight and not all(format_of(file) == "JPEG" for file in self.files),
            remarks=() if straight or first.alpha is None else (TRANSPARENT,),
        )

    def frames(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Tensor, Fraction]]:
        """Yield frames; see :meth:`FrameReader.frames`."""
        for photo, time in self._photos(start, stop):
            yield photo.pixels, time

    def originals(self, start: Fraction | float | None = None) -> Iterator[tuple[Original, Fraction]]:
        """Yield frames with their alpha; see :meth:`FrameReader.originals`."""
        if not self.straight:
            yield from super().originals(start)
            return
        for photo, time in self._photos(start):
            yield Original(photo.pixels, alpha=photo.alpha), time

    def _photos(
        self, start: Fraction | float | None = None, stop: Fraction | float | None = None
    ) -> Iterator[tuple[Photo, Fraction]]:
        for number, file in enumerate(self.files):
            time = number / self.info.fps
            if (start is not None and time < start) or (stop is not None and time >= stop):
                continue
            photo = self._read(file)
            if photo is not None:
                self.end = time + 1 / self.info.fps
                yield photo, time

    def at(self, time: Fraction | float) -> Tensor:
        """Return the frame that is shown at a time in seconds, uint8 ``(3,H,W)``; in a gap, the nearest earlier one."""
        number = min(max(int(Fraction(time) * self.info.fps), 0), len(self.files) - 1)
        for file in reversed(self.files[: number + 1]):
            photo = self._read(file)
            if photo is not None:
                return photo.pixels
        raise AnimegenError(f"'{self.files[0]}' cannot be read any more: restore it.")

    def _read(self, file: Path) -> Photo | None:
        try:
            photo = read_photo(file) if self.straight else Photo(read_image(file))
        except AnimegenError as error:
            self.report(str(error))
            return None
        height, width = photo.pixels.shape[1:]
        if (height, width) != (self.info.height, self.info.width):
            wanted = f"{self.info.width}x{self.info.height}"
            self.report(f"'{file.name}' has {width}x{height} pixels instead of {wanted}")
            return None
        return photo


class SequenceWriter(FrameWriter):
    """A folder of numbered images. Their times are not kept: every frame is one image.

    PNGs of videos with more than eight bits per colour have sixteen.

    Args:
        path: the folder, whose images are then ``000001.png`` and so on, or a pattern like ``frames/%05d.jpg``.
        suffix: format of the images in a folder.
        overwrite: images with numbers of that pattern in an existing folder are replaced when the video is complete,
            nothing else.
    """

    def __init__(self, path: str | Path, suffix: str = ".png", overwrite: bool = True) -> None:
        self.path, self.overwrite = Path(path), overwrite
        pattern = self.path if is_pattern(self.path) else self.path / f"%06d{suffix}"
        self.folder, self._name = pattern.parent, pattern.name
        self.deep = pattern.suffix.lower() == ".png"
        self.alpha = keeps_alpha(pattern)
        self.notes: list[str] = []
        self.count = 0
        # Inside a folder that exists: it may be the root of its file system.
        self._lock = ExitStack()
        self._lock.enter_context(locked_file(Path(real_path(self.folder))))
        exists = self.folder.is_dir()
        self._hidden = hidden_name(self.folder / "frames" if exists else Path(real_path(self.folder)))

    def write(self, pixels: Tensor, time: Fraction) -> None:
        """Append an image; see :meth:`FrameWriter.write`."""
        self.count += 1
        path = self._hidden / (self._name % self.count)
        if pixels.is_floating_point():
            _write_deep(path, pixels)
        else:
            write_photo(path, Photo(pixels[:3], pixels[3] if len(pixels) == 4 else None))

    def close(self, end: Fraction | None = None) -> None:
        """Give the folder its name, or move the images into the folder that has it."""
        if self.count == 0:
            raise AnimegenError(f"'{self.path}' is not written, since there is no frame for it: check the input.")
        if not self._hidden.exists():
            return
        try:
            with writing(self.path):
                self._publish()
        finally:
            self.abort()

    def _publish(self) -> None:
        if not self.folder.is_dir():
            publish_folder(self._hidden, self.folder)
            return
        old = numbered(self.folder / self._name, must_exist=False)
        if old and not self.overwrite:
            raise exists_error(old[0])
        new = {image: self.folder / image.name for image in sorted(self._hidden.iterdir())}
        publish_all(new, self.overwrite)
        for image in set(old) - set(new.values()):
            image.unlink()

    def abort(self) -> None:
        """Remove what was written; see :meth:`FrameWriter.abort`."""
        shutil.rmtree(self._hidden, ignore_errors=True)
        self._lock.close()


def _write_deep(path: Path, pixels: Tensor) -> None:
    """Write float (3,H,W) or (4,H,W) in [-1,1] as a PNG with 16 bits per colour, which Pillow cannot."""
    order = (2, 1, 0, 3)[: len(pixels)]
    values = (
        pixels[list(order)].add(1).mul_(65535 / 2).round_().clamp_(0, 65535).permute(1, 2, 0).numpy().astype(np.uint16)
    )
    with completed(path) as hidden, writing(path):
        hidden.write_bytes(cv2.imencode(".png", values)[1].tobytes())


def is_pattern(path: str | Path) -> bool:
    """Tell whether a path is a pattern for numbered files, like ``frames/%05d.png``, and not the name of a file."""
    return bool(_NUMBER.search(Path(path).name)) and not Path(path).is_file()


def numbered(pattern: Path, must_exist: bool = True) -> list[Path]:
    """Return the files that a pattern like ``frames/%05d.png`` stands for, in order of their numbers.

    Raises:
        AnimegenError: if there are none and ``must_exist``.
    """
    before, _, after = (re.escape(part) for part in (_NUMBER.sub("\0", pattern.name, count=1).partition("\0")))
    wanted = re.compile(f"{before}[0-9]+{after}", re.IGNORECASE)
    found = (
        [file for file in pattern.parent.glob("*") if wanted.fullmatch(file.name)] if pattern.parent.is_dir() else []
    )
    if must_exist and not found:
        raise AnimegenError(f"There is no image '{pattern}' with a number in its name: check the pattern.")
    return sorted(found, key=lambda file: natural_key(file.name))
