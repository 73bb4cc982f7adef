"""Data: sources of images, views that turn them into samples, and the data module.

``source -> view -> uint8 batch -> device -> augment -> [-1, 1]``. Order and randomness are a function of
the seed and of sample numbers (:mod:`animegen.data.sampler`).
"""

from typing import TYPE_CHECKING, Any

from animegen.data.augment import Augment
from animegen.data.drawing import DrawnPhotos
from animegen.data.edge_smoothing import edge_smooth
from animegen.data.memory import InMemory
from animegen.data.regions import regions_source
from animegen.data.sampler import ResumableBatchSampler
from animegen.data.sources import (
    ClassicLayout,
    Holdout,
    ImageFolder,
    ImageSource,
    Matched,
    Subset,
    classic_source,
    smooth_source,
)
from animegen.data.views import PairedView, StillView, UnpairedView, View
from animegen.media.images import list_images, read_image, to_float, to_uint8, write_image

__all__ = [
    "AnimeDataModule",
    "Augment",
    "ClassicLayout",
    "DrawnPhotos",
    "Holdout",
    "ImageFolder",
    "ImageSource",
    "InMemory",
    "Matched",
    "PairedView",
    "ResumableBatchSampler",
    "StillView",
    "Subset",
    "UnpairedView",
    "View",
    "classic_source",
    "edge_smooth",
    "list_images",
    "read_image",
    "regions_source",
    "smooth_source",
    "to_float",
    "to_uint8",
    "write_image",
]


if TYPE_CHECKING:
    from animegen.data.datamodule import AnimeDataModule


def __getattr__(name: str) -> Any:
    """Import the data module, and Lightning with it, on first use: models import this package for application, too."""
    if name == "AnimeDataModule":
        from animegen.data.datamodule import AnimeDataModule

        return AnimeDataModule
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
