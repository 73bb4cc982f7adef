"""The images of an evaluation: saved by a run, and arranged next to those of other runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from torch import Tensor

from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.media.images import read_image, to_uint8, write_image

INDEX = "index.json"


def save_samples(headers: Sequence[str], rows: Sequence[Sequence[Tensor]], folder: Path, method: str = "model") -> None:
    """Write images as ``<folder>/<column>/<sample>.png``, and then ``index.json`` with the columns in order.

    Files of these names are replaced, others stay.

    Args:
        headers: a name per column, see `Benchmark.sample_rows`.
        rows: per sample an image (3, H, W) in [-1, 1] for each column.
        folder: created if missing.
        method: the column of the model; those after it are the truth.

    Raises:
        AnimegenError: if the folder cannot be written.
    """
    given = [0, *range(list(headers).index(method) + 1, len(headers))]
    digests = []
    for number, row in enumerate(rows):
        images = [to_uint8(image.detach().cpu()) for image in row]
        for header, image in zip(headers, images, strict=True):
            write_image(folder / header / f"{number}.png", image)
        digests.append(_digest([images[place] for place in given]))
    with completed(folder / INDEX) as hidden:
        hidden.write_text(json.dumps({"columns": list(headers), "samples": digests}, indent=2) + "\n")


def _digest(images: Sequence[Tensor]) -> str:
    """Return the first 16 hex digits of the SHA-256 of the pixels, which identify a sample."""
    return hashlib.sha256(b"".join(image.contiguous().numpy().tobytes() for image in images)).hexdigest()[:16]


class Index(TypedDict):
    """The content of ``index.json``."""

    columns: list[str]
    samples: list[str]


class Samples:
    """The images that a run has kept.

    Attributes:
        folder: that contains them.
        columns: their names: inputs, baselines, ``model``, truth.
        digests: identifies the input and truth of each sample.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = read_json(folder / INDEX, "the images of an evaluation", "evaluate again")
        if fault := mismatch(index, Index, "it"):
            raise AnimegenError(f"'{folder / INDEX}' is damaged, {fault}: evaluate again.")
        self.columns: list[str] = index["columns"]
        self.digests: list[str] = index["samples"]
        # Columns are names of folders, which must not lead out of this one.
        if "model" not in self.columns[1:] or any(Path(column).name != column for column in self.columns):
            raise AnimegenError(f"'{folder / INDEX}' is damaged, its columns are {self.columns}: evaluate again.")

    @classmethod
    def of_run(cls, run: Path) -> Samples | None:
        """Return the images of a run folder, or ``None`` if it has none."""
        return cls(run / "samples") if (run / "samples" / INDEX).is_file() else None

    def image(self, column: str, number: int) -> Tensor:
        """Return an image (3, H, W) in [-1, 1]."""
        return read_image(self.folder / column / f"{number}.png").float() / 127.5 - 1


def side_by_side(
    runs: Sequence[tuple[str, Samples]], numbers: Sequence[int] | None = None, method: str = "model"
) -> tuple[list[str], list[list[Tensor]]]:
    """Return headers and rows (per sample: inputs, each run's output, truth) for `table.image_strip`.

    Args:
        runs: (title, images) of runs with the same test samples.
        numbers: of the samples; ``None`` takes all. Those that a run lacks are left out.
        method: the column to show.
    """
    first = runs[0][1]
    place = first.columns.index(method)
    # The order is inputs, baselines, the method, truth.
    truths = first.columns[place + 1 :]
    count = min(len(samples.digests) for _, samples in runs)
    chosen = [number for number in (numbers if numbers is not None else range(count)) if 0 <= number < count]
    headers = [first.columns[0], *(title for title, _ in runs), *truths]
    rows = [
        [
            first.image(first.columns[0], number),
            *(samples.image(method, number) for _, samples in runs),
            *(first.image(name, number) for name in truths),
        ]
        for number in chosen
    ]
    return headers, rows


def enlarged(rows: Sequence[Sequence[Tensor]], side: int = 96) -> list[list[Tensor]]:
    """Repeat the pixels of images (3, H, W) narrower than ``side``, so that titles fit."""
    width = min(image.shape[-1] for row in rows for image in row)
    factor = max(1, -(-side // width))
    return [[image.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for image in row] for row in rows]
