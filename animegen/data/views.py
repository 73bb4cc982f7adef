"""Views: sources turned into the samples of a task.

A view is a map-style dataset. ``view[n]`` is a pure function of the global sample number ``n``, so the order of
training is fixed and nothing about it has to be saved. Images of different sizes are cropped to uint8 squares of one
size; costlier operations run on the device (:mod:`animegen.data.augment`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from animegen.data.sampler import draw_integer, stream_index
from animegen.data.sources import ImageSource, Matched, by_name_hash, next_good, prepare_source
from animegen.data.sources import load as load_image
from animegen.errors import AnimegenError


class View(Dataset[dict[str, Tensor]]):
    """Base class of views.

    A *stream* is a group of aligned sources, which share order and crop. Different streams are shuffled independently.
    The first stream defines the names of the samples and, without shuffling, their number.

    Args:
        streams: one dict ``{batch key: source}`` per stream.
        size: side of the squares in pixels.
        seed: seed of order and crops.
        shuffle: ``True`` for training: endless, random order, random crops. ``False`` for evaluation: each sample of
            the first stream once, in order, centre crops.
    """

    def __init__(self, streams: list[dict[str, ImageSource]], size: int, seed: int = 0, shuffle: bool = True) -> None:
        if size < 1:
            raise AnimegenError(f"Images of {size} pixels are not possible: set a positive size.")
        for key, source in ((key, source) for stream in streams for key, source in stream.items()):
            if not isinstance(source, ImageSource):
                raise AnimegenError(
                    f"The entry '{key}' of a view must be an image source such as animegen.data.ImageFolder,"
                    f" not {type(source).__name__} ({source!r})."
                )
        self.streams, self.size, self.seed, self.shuffle = streams, size, seed, shuffle

    @property
    def sources(self) -> dict[str, ImageSource]:
        """All sources by batch key."""
        return {key: source for stream in self.streams for key, source in stream.items()}

    @property
    def aligned(self) -> list[list[str]]:
        """Groups of batch keys with aligned images, which must be augmented alike."""
        return [list(stream) for stream in self.streams]

    @property
    def skipped(self) -> int:
        """Number of broken files found so far."""
        return sum(getattr(source, "skipped", 0) for source in self.sources.values())

    def prepare(self) -> None:
        """Prepare and check the sources, before workers start."""
        for source in self.sources.values():
            prepare_source(source)
        for stream in self.streams:
            lengths = {key: len(source) for key, source in stream.items()}
            if len(set(lengths.values())) > 1:
                raise AnimegenError(f"Paired sources must have the same number of images, these have {lengths}.")

    def __len__(self) -> int:
        """Return the number of samples; for training, the length of the longest stream."""
        lengths = [len(next(iter(stream.values()))) for stream in self.streams]
        return max(lengths) if self.shuffle else lengths[0]

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return uint8 ``(3, size, size)`` per batch key, and ``sample``: the number, int64."""
        if number < 0 or (not self.shuffle and number >= len(self)):
            raise IndexError(f"sample {number} of {len(self)}")
        sample: dict[str, Tensor] = {}
        for stream in self.streams:
            images = next_good(list(stream.values()), self._index(stream, number))
            sample |= self._squares(stream, images, number if self.shuffle else None)
        return sample | {"sample": torch.tensor(number)}

    def name(self, number: int) -> str:
        """Return the name of sample ``number``, that of its first image."""
        stream = self.streams[0]
        return next(iter(stream.values())).name(self._index(stream, number))

    def preview(self, count: int) -> dict[str, Tensor]:
        """Return up to ``count`` fixed samples of the first stream as one batch.

        They are chosen by the hashes of their names and cropped in the centre, so they are the same for every seed,
        model and loader. Only the first stream is included, since images of an unpaired stream would look like the
        truth. ``sample`` has the indices in the source.
        """
        stream = self.streams[0]
        chosen: list[dict[str, Tensor]] = []
        for index in by_name_hash(next(iter(stream.values()))):
            images = [load_image(source, index) for source in stream.values()]
            good = [image for image in images if image is not None]
            if len(good) == len(images):
                chosen.append(self._squares(stream, good, None) | {"sample": torch.tensor(index)})
            if len(chosen) == count:
                break
        return {key: torch.stack([sample[key] for sample in chosen]) for key in chosen[0]}

    def _index(self, stream: dict[str, ImageSource], number: int) -> int:
        length = len(next(iter(stream.values())))
        return stream_index(self.seed, "+".join(stream), number, length) if self.shuffle else number % length

    def _squares(self, stream: dict[str, ImageSource], images: list[Tensor], number: int | None) -> dict[str, Tensor]:
        """Scale and crop aligned images alike: randomly for a training sample, else in the centre."""
        shapes = {key: tuple(image.shape[-2:]) for key, image in zip(stream, images, strict=True)}
        if len(set(shapes.values())) > 1:
            raise AnimegenError(f"Paired images must have the same height and width, these have {shapes}.")
        scaled = [scale_short_side(image, self.size) for image in images]
        rows, columns = (side - self.size + 1 for side in scaled[0].shape[-2:])
        if number is None:
            top, left = (rows - 1) // 2, (columns - 1) // 2
        else:
            name = "+".join(stream)
            top = draw_integer(rows, self.seed, "top", name, number)
            left = draw_integer(columns, self.seed, "left", name, number)
        crops = [image[:, top : top + self.size, left : left + self.size].contiguous() for image in scaled]
        return dict(zip(stream, crops, strict=True))


class UnpairedView(View):
    """Unpaired photos and anime: keys ``photo``, ``anime``, ``sample``, and those of the other sources.

    They are shuffled independently. ``smooth`` (edge-smoothed anime) is read from disk here, or computed by the data
    module. ``regions`` (piecewise constant photos), ``drawn`` (drawings of the photos) and ``ink`` (their lines, black
    on white) are in the order of the photos, and cropped like them.
    """

    def __init__(
        self,
        photo: ImageSource,
        anime: ImageSource,
        smooth: ImageSource | None = None,
        size: int = 256,
        seed: int = 0,
        shuffle: bool = True,
        regions: ImageSource | None = None,
        drawn: ImageSource | None = None,
        ink: ImageSource | None = None,
    ) -> None:
        aligned = {"photo": photo, "regions": regions, "drawn": drawn, "ink": ink}
        photos = {key: source for key, source in aligned.items() if source is not None}
        streams = [photos, {"anime": anime}]
        super().__init__(streams if smooth is None else [*streams, {"smooth": smooth}], size, seed, shuffle)


class PairedView(View):
    """Photos with their drawings, cropped alike: keys ``photo``, ``anime``, ``sample``.

    Args:
        photo: the photos.
        anime: their drawings, in the same order.
        size: side of the squares in pixels.
        seed: seed of order and crops.
        shuffle: see :class:`View`.
        match: how pairs are found: ``index`` (same index) or ``name`` (same file name except for the suffix).
        ink: the lines of the drawings, black on white, in the same order: adds a key ``ink``.
    """

    def __init__(
        self,
        photo: ImageSource,
        anime: ImageSource,
        size: int = 256,
        seed: int = 0,
        shuffle: bool = True,
        match: str = "index",
        ink: ImageSource | None = None,
    ) -> None:
        if match not in ("index", "name"):
            raise AnimegenError(f"match={match} is unknown: use index or name.")
        anime = Matched(anime, like=photo) if match == "name" else anime
        lines = {} if ink is None else {"ink": ink}
        super().__init__([{"photo": photo, "anime": anime, **lines}], size, seed, shuffle)


class StillView(View):
    """Single images: keys ``key`` and ``sample``."""

    def __init__(
        self, images: ImageSource, key: str = "photo", size: int = 256, seed: int = 0, shuffle: bool = True
    ) -> None:
        super().__init__([{key: images}], size, seed, shuffle)


def scale_short_side(image: Tensor, size: int) -> Tensor:
    """Scale uint8 ``(3, H, W)`` so that its shorter side has ``size`` pixels (bilinear, anti-aliased)."""
    height, width = image.shape[-2:]
    if min(height, width) == size:
        return image
    return F.interpolate(image[None], short_side_shape(height, width, size), mode="bilinear", antialias=True)[0]


def short_side_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return height and width of an image whose shorter side is scaled to ``size`` pixels."""
    short = min(height, width)
    return max(size, round(height * size / short)), max(size, round(width * size / short))
