"""Sources of images, independent of models, sizes and batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from animegen.data.sampler import counter_hash
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import existing_folder
from animegen.media.images import EXTENSIONS, list_images, read_image

log = logging.getLogger(__name__)


@runtime_checkable
class ImageSource(Protocol):
    """Numbered collection of images: deterministic, picklable, and stateless in :meth:`image`.

    Two more methods are optional: ``load(index)`` returns ``None`` for a broken image (:meth:`image` then returns the
    next good one), and ``prepare()`` does costly work once, before workers start.
    """

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def image(self, index: int) -> Tensor:
        """Return image ``index`` as uint8 ``(3, H, W)``, RGB; H and W may vary."""
        ...

    def name(self, index: int) -> str:
        """Return the name of image ``index``: stable and unique within the source."""
        ...


def load(source: ImageSource, index: int) -> Tensor | None:
    """Return an image of any source, or ``None`` if the source skips it as broken."""
    loader = getattr(source, "load", None)
    return source.image(index) if loader is None else loader(index)


def prepare_source(source: object) -> None:
    """Call the ``prepare()`` of a source if it has one."""
    if (prepare := getattr(source, "prepare", None)) is not None:
        prepare()


def next_good(sources: Sequence[ImageSource], index: int) -> list[Tensor]:
    """Return image ``index`` of each of several parallel sources, or the next index at which none is broken.

    Raises:
        AnimegenError: if there is no such index.
    """
    length = len(sources[0])
    if not 0 <= index < length:
        raise IndexError(f"image {index} of {length}")
    for step in range(length):
        images = [load(source, (index + step) % length) for source in sources]
        good = [image for image in images if image is not None]
        if len(good) == len(sources):
            return good
    raise AnimegenError(
        f"None of the {length} images beginning with '{sources[0].name(0)}' can be used: see the warnings above, and"
        " repair or replace them."
    )


class ImageFolder:
    """Images of a folder, in natural order of their names.

    The folder is listed on first use, and must then contain a usable image.

    Args:
        path: the folder.
        on_error: handling of broken or too small files. ``skip``: warn once, count the file in :attr:`skipped`, and use
            the next good image; ``fail``: raise an error.
        min_size: least width and height in pixels.
        recursive: include subfolders.
        extensions: suffixes of images.
    """

    def __init__(
        self,
        path: str | Path,
        on_error: str = "skip",
        min_size: int = 16,
        recursive: bool = True,
        extensions: Sequence[str] = EXTENSIONS,
    ) -> None:
        if on_error not in ("skip", "fail"):
            raise AnimegenError(f"on_error={on_error} for the folder '{path}' is unknown: use skip or fail.")
        self.path = Path(path)
        self.on_error, self.min_size, self.recursive = on_error, min_size, recursive
        self.extensions = tuple(extensions)
        self._files: list[Path] | None = None
        self._names: list[str] = []
        self._broken = torch.zeros(0, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def files(self) -> list[Path]:
        """The files, in order."""
        if self._files is None:
            files = list_images(self.path, self.recursive, self.extensions)
            names = [file.relative_to(self.path).as_posix() for file in files]
            # In shared memory, so that the main process and all workers know the broken files.
            broken = torch.zeros(len(files), dtype=torch.bool).share_memory_()
            self._files, self._names, self._broken = files, names, broken
            if all(self.load(index) is None for index in range(len(files))):
                self._files = None
                raise AnimegenError(
                    f"None of the {len(files)} images in '{self.path}' can be used. {self._defect(files[0])}"
                )
        return self._files

    @property
    def skipped(self) -> int:
        """Number of broken files met so far, in all workers."""
        return int(self._broken.sum())

    def name(self, index: int) -> str:
        """Return the path below the folder, with ``/`` on every system."""
        _ = self.files
        return self._names[index]

    def image(self, index: int) -> Tensor:
        """Return image ``index``, or the next good one if that is broken and ``on_error`` is ``skip``."""
        return next_good([self], index)[0]

    def load(self, index: int) -> Tensor | None:
        """Return image ``index``, or ``None`` if it is broken and ``on_error`` is ``skip``."""
        file = self.files[index]
        if self._broken[index]:
            return None
        try:
            return self._read(file)
        except AnimegenError as error:
            if self.on_error == "fail":
                raise
            self._broken[index] = True
            log.warning("Skipped: %s", error)
            return None

    def _read(self, file: Path) -> Tensor:
        image = read_image(file)
        height, width = image.shape[-2:]
        if min(height, width) < self.min_size:
            raise AnimegenError(
                f"The image '{file}' of {width}x{height} pixels is smaller than min_size={self.min_size}: remove it, or"
                " set a smaller min_size."
            )
        return image

    def _defect(self, file: Path) -> str:
        try:
            self._read(file)
        except AnimegenError as error:
            return str(error)
        return ""


class _Selection:
    """Selection of images of another source; a broken image is replaced by one of the selection."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self._indices: Sequence[int] | None = None

    def _select(self) -> Sequence[int]:
        raise NotImplementedError

    @property
    def indices(self) -> Sequence[int]:
        """Index in the source of each image."""
        if self._indices is None:
            self._indices = self._select()
        return self._indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def skipped(self) -> int:
        """Number of broken files met so far in the whole source."""
        return getattr(self.source, "skipped", 0)

    def name(self, index: int) -> str:
        """Return the name of the image in the source."""
        return self.source.name(self.indices[index])

    def image(self, index: int) -> Tensor:
        """Return image ``index`` of the selection, or the next good one of the selection."""
        return next_good([self], index)[0]

    def load(self, index: int) -> Tensor | None:
        """Return image ``index`` of the selection, or ``None`` if it is broken."""
        return load(self.source, self.indices[index])

    def prepare(self) -> None:
        """Prepare the source."""
        prepare_source(self.source)


class Subset(_Selection):
    """Images ``start`` to ``stop`` (exclusive) of a source."""

    def __init__(self, source: ImageSource, start: int = 0, stop: int | None = None) -> None:
        super().__init__(source)
        self.start, self.stop = start, stop

    def _select(self) -> range:
        chosen = range(len(self.source))[self.start : self.stop]
        if not chosen:
            raise AnimegenError(
                f"There are no images {self.start} to {self.stop} in a source of {len(self.source)}: correct start and"
                " stop."
            )
        return chosen


class Holdout(_Selection):
    """Part of a source, chosen by the hash of each image's name.

    The division is stable: adding or removing images does not move others. Names are hashed without their suffix, so
    that paired folders are divided alike.

    Args:
        source: the source to divide.
        share: fraction of held-out images, in [0, 1). At least one image is held out unless it is 0.
        part: ``train`` or ``heldout``.
    """

    def __init__(self, source: ImageSource, share: float = 0.1, part: str = "train") -> None:
        super().__init__(source)
        if not 0 <= share < 1:
            raise AnimegenError(f"A share of {share} cannot be held out: use a number in [0, 1).")
        if part not in ("train", "heldout"):
            raise AnimegenError(f"part={part} is unknown: use train or heldout.")
        self.share, self.part = share, part

    def _select(self) -> list[int]:
        count = len(self.source)
        places = [(_place(_stem(self.source.name(index)), "holdout"), index) for index in range(count)]
        heldout = {index for place, index in places if place < self.share * 2**64}
        if self.share > 0 and not heldout:
            heldout = {min(places)[1]}
        chosen = [index for index in range(count) if (index in heldout) == (self.part == "heldout")]
        if not chosen:
            remedies = {
                "train": "use more images, or train on all of them with data.holdout=0 data.val=null data.stills=null",
                "heldout": "set data.val=null data.stills=null",
            }
            raise AnimegenError(
                f"Holding out a share of {self.share} of {count} images leaves none for '{self.part}':"
                f" {remedies[self.part]}."
            )
        return chosen


class Matched(_Selection):
    """Source reordered by name: image i has the same name, without suffix, as image i of ``like``.

    Raises:
        AnimegenError: on first use, if an image of ``like`` has no counterpart.
    """

    def __init__(self, source: ImageSource, like: ImageSource) -> None:
        super().__init__(source)
        self.like = like

    def _select(self) -> list[int]:
        places: dict[str, int] = {}
        for index in range(len(self.source)):
            name = self.source.name(index)
            if places.setdefault(_stem(name), index) != index:
                other = self.source.name(places[_stem(name)])
                raise AnimegenError(
                    f"'{other}' and '{name}' only differ in their suffix, so the pair '{_stem(name)}' is ambiguous:"
                    " remove one."
                )
        wanted = [self.like.name(index) for index in range(len(self.like))]
        missing = [name for name in wanted if _stem(name) not in places]
        if missing:
            raise AnimegenError(
                f"{len(missing)} of {len(wanted)} images have no counterpart of the same name, such as '{missing[0]}':"
                f" give both images of a pair the same name.{did_you_mean(_stem(missing[0]), places)}"
            )
        return [places[_stem(name)] for name in wanted]


class ClassicLayout:
    """Folder layout of AnimeGAN: ``train_photo``, ``<Style>/style``, ``<Style>/smooth``, ``val``, ``test``.

    Args:
        root: the folder that holds them.
        on_error: see :class:`ImageFolder`.
    """

    _FOLDERS: ClassVar = {"photo": "train_photo", "val": "val", "test": "test/test_photo", "test_hr": "test/HR_photo"}
    PARTS = (*_FOLDERS, "style", "smooth")

    def __init__(self, root: str | Path, on_error: str = "skip") -> None:
        self.root, self.on_error = Path(root), on_error
        existing_folder(self.root)

    def styles(self) -> list[str]:
        """Return the names of the styles: folders that contain a folder ``style``."""
        return sorted(folder.parent.name for folder in self.root.glob("*/style") if folder.is_dir())

    def source(self, part: str, style: str | None = None) -> ImageFolder:
        """Return one part as a source; ``style`` and ``smooth`` need the name of a style.

        Raises:
            AnimegenError: for an unknown part or style, or a missing folder.
        """
        if part in self._FOLDERS:
            folder = self.root / self._FOLDERS[part]
        elif part in self.PARTS:
            folder = self.root / self._checked(style) / part
        else:
            raise AnimegenError(f"part={part} is unknown: use one of {', '.join(self.PARTS)}.")
        if not folder.is_dir():
            remedy = {"smooth": "or use data.smooth=online", "val": "or set data.val=null"}
            raise AnimegenError(
                f"The folder '{folder}' does not exist in the classic layout of '{self.root}':"
                f" create it{', ' + remedy[part] if part in remedy else ''}."
            )
        return ImageFolder(folder, on_error=self.on_error)

    def _checked(self, style: str | None) -> str:
        styles = self.styles()
        if style not in styles:
            found = f"found: {', '.join(styles)}" if styles else "it has no folder <style>/style"
            raise AnimegenError(
                f"There is no style '{style}' in '{self.root}': {found}.{did_you_mean(str(style), styles)}"
            )
        return str(style)


def classic_source(root: str | Path, part: str, style: str | None = None, on_error: str = "skip") -> ImageFolder:
    """Return one part of a :class:`ClassicLayout`, for use in a configuration."""
    return ClassicLayout(root, on_error).source(part, style)


def smooth_source(
    mode: str,
    folder: str | Path | None = None,
    root: str | Path | None = None,
    style: str | None = None,
    on_error: str = "skip",
) -> ImageFolder | None:
    """Return the edge-smoothed images on disk, or ``None`` if they are not used.

    Args:
        mode: ``data.smooth``; only ``disk`` reads files.
        folder: folder of the images.
        root: alternatively, the root of a classic layout.
        style: style in the classic layout.
        on_error: see :class:`ImageFolder`.
    """
    if mode != "disk":
        if folder is not None:
            raise AnimegenError(
                f"The folder '{folder}' of smoothed images is not used by smooth={mode}: set smooth=disk."
            )
        return None
    if folder is not None:
        return ImageFolder(folder, on_error=on_error)
    if root is None:
        raise AnimegenError("smooth=disk needs a folder of smoothed images: set smooth_folder, or use smooth=online.")
    return classic_source(root, "smooth", style, on_error)


def by_name_hash(source: ImageSource) -> list[int]:
    """Return all indices of a source, ordered by the hashes of the names: a fixed random order."""
    return sorted(range(len(source)), key=lambda index: _place(source.name(index), "preview"))


def _place(name: str, purpose: str) -> int:
    """Return the hash of a name in [0, 2**64)."""
    return counter_hash(purpose, name) % 2**64


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
