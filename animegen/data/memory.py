"""Source that caches scaled images in memory."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from animegen.data.sources import ImageSource, load, next_good, prepare_source
from animegen.data.views import scale_short_side


class InMemory:
    """Cache the images of another source, so that each is decoded and scaled once.

    The images are equal to those that a view of the same ``size`` computes, so training is identical to the bit. Each
    worker process has its own cache.

    Args:
        source: the source to cache.
        size: shorter side of the cached images; the ``size`` of the view.
        megabytes: size of the cache; images beyond it are read each time. 0 disables the cache.
    """

    def __init__(self, source: ImageSource, size: int, megabytes: int = 1024) -> None:
        self.source, self.size, self.megabytes = source, size, megabytes
        self._kept: dict[int, Tensor | None] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the images when the source is sent to a worker."""
        return {**self.__dict__, "_kept": {}, "_bytes": 0}

    @property
    def skipped(self) -> int:
        """Number of broken files met so far in the source."""
        return getattr(self.source, "skipped", 0)

    def name(self, index: int) -> str:
        """Return the name of the image in the source."""
        return self.source.name(index)

    def image(self, index: int) -> Tensor:
        """Return image ``index``, or the next good one, uint8 with a shorter side of ``size``."""
        return next_good([self], index)[0]

    def load(self, index: int) -> Tensor | None:
        """Return image ``index``, or ``None`` if it is broken."""
        if index in self._kept:
            return self._kept[index]
        image = load(self.source, index)
        if image is not None:
            image = scale_short_side(image, self.size)
        size = 0 if image is None else image.numel()
        if self._bytes + size <= self.megabytes * 2**20:
            self._kept[index] = image
            self._bytes += size
        return image

    def prepare(self) -> None:
        """Prepare the source."""
        prepare_source(self.source)
