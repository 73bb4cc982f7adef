"""Stylization of a folder of photos without drawings: the five figures, beside the photos and a change of colours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from animegen.benchmarks.baselines import Identity, LinearColourTransfer
from animegen.benchmarks.benchmark import Benchmark, Measured, Method, spread
from animegen.benchmarks.stylise import figures
from animegen.data.sources import ImageFolder, load
from animegen.files import existing_folder
from animegen.media.images import to_float, to_uint8
from animegen.media.photos import Photo, shrink
from animegen.metrics import image
from animegen.tasks.protocols import Stylizer


class PhotoBenchmark(Benchmark):
    """Stylization of photos of any sizes. There is no truth, so no metric measures the quality of the drawings.

    The baselines are the photos themselves (``identity``), and ``colour_transfer``: the photos in the mean and the
    covariance of the colours of the model's own drawings, which shows how much of a figure is more than colour.

    Args:
        photos: folder of photos. Broken ones are left out, with a warning.
        model: its drawings are those to which the colour transfer is fitted.
        max_side: longer side in pixels to which larger photos are scaled down.
        limit: number of photos to use, evenly spread; ``None`` for all.

    Raises:
        AnimegenError: if there is no such folder, or no usable photo in it.
    """

    task = "stylise_photos"
    main = "flatness"

    def __init__(self, photos: str | Path, model: Stylizer, max_side: int = 512, limit: int | None = None) -> None:
        super().__init__()
        existing_folder(photos)
        self.test = ImageFolder(photos)
        self.model, self.max_side, self.limit = model, max_side, limit

    def fit_baselines(self) -> dict[str, Method]:
        """Fit the colour transfer to the drawings."""
        numbers = spread(range(len(self.test)), self.limit)
        photos = [photo for number in numbers if (photo := self._photo(number)) is not None]
        device = getattr(self.model, "device", "cpu")
        drawings = [to_uint8(self.method_of(self.model)(to_float(photo[None].to(device))))[0].cpu() for photo in photos]
        transfer = LinearColourTransfer().fit(_Images(photos), _Images(drawings))
        return {baseline.name: baseline for baseline in (Identity(), transfer)}

    def batches(self, device: torch.device, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield ``photo`` (1, 3, H, W), one at a time, since sizes vary."""
        for number in spread(spread(range(len(self.test)), self.limit), limit):
            if (photo := self._photo(number)) is not None:
                yield {"photo": to_float(photo[None].to(device))}

    def apply(self, method: Method, batch: dict[str, Any]) -> Tensor:
        """Stylise the photo."""
        return method(batch["photo"])

    def shown(self, batch: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Show the photo."""
        return {"photo": batch["photo"]}, {}

    def measure(self, batch: dict[str, Any], output: Tensor) -> Measured:
        """Return the five figures, and how well the edges of the photo are kept."""
        photo = batch["photo"]
        return Measured({**figures(output, photo), "content_edge_f": image.edge_f_score(output, photo)})

    def _photo(self, number: int) -> Tensor | None:
        photo = load(self.test, number)
        return None if photo is None else shrink(Photo(photo), self.max_side).pixels


class _Images(list[Tensor]):
    """Images in memory as a source."""

    def image(self, index: int) -> Tensor:
        return self[index]

    def name(self, index: int) -> str:
        return str(index)
