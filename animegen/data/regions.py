"""Precomputed images of regions of the photos, such as superpixels filled with their mean colour."""

from __future__ import annotations

from pathlib import Path

from animegen.data.memory import InMemory
from animegen.data.sources import ImageFolder, ImageSource, Matched


def regions_source(
    folder: str | Path | None,
    photos: ImageSource,
    on_error: str = "skip",
    size: int | None = None,
    megabytes: int = 0,
) -> ImageSource | None:
    """Return images of regions in the order of their photos, or ``None`` if there is no folder of them.

    Args:
        folder: folder of the images, with the names (except for the suffix) and sizes of the photos.
        photos: the training photos.
        on_error: see :class:`~animegen.data.sources.ImageFolder`.
        size: as for the photos' :class:`~animegen.data.memory.InMemory`; ``None`` for photos without one.
        megabytes: as for the photos' :class:`~animegen.data.memory.InMemory`.
    """
    if folder is None:
        return None
    regions = Matched(ImageFolder(folder, on_error=on_error), like=photos)
    return regions if size is None else InMemory(regions, size, megabytes)
