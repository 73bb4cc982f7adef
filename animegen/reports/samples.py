"""The pictures of an evaluation as files: kept by a run, and put side by side with those of other runs."""

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
    """Write pictures as ``<folder>/<column>/<sample>.png``, and then an ``index.json`` that names the columns in order.

    Files of these names are replaced, others stay.

    Args:
        headers: a name per column, see `Benchmark.pictures`.
        rows: per sample a picture (3, H, W) in [-1, 1] for each column.
        folder: where to.
        method: the column of the model; those after it are the truth.

    Raises:
        AnimegenError: if the folder cannot be written.
    """
    given = [0, *range(list(headers).index(method) + 1, len(headers))]
    digests = []
    for number, row in enumerate(rows):
        pictures = [to_uint8(picture.detach().cpu()) for picture in row]
        for header, picture in zip(headers, pictures, strict=True):
            write_image(folder / header / f"{number}.png", picture)
        digests.append(_digest([pictures[place] for place in given]))
    with completed(folder / INDEX) as hidden:
        hidden.write_text(json.dumps({"columns": list(headers), "samples": digests}, indent=2) + "\n")


def _digest(pictures: Sequence[Tensor]) -> str:
    """Return what tells a sample from others: the first 16 hex digits of SHA-256 of its pixels."""
    return hashlib.sha256(b"".join(p.contiguous().numpy().tobytes() for p in pictures)).hexdigest()[:16]


class Index(TypedDict):
    """What ``index.json`` holds."""

    columns: list[str]
    samples: list[str]


class Samples:
    """The pictures that a run has kept.

    Attributes:
        folder: where they lie.
        columns: their names: inputs, baselines, ``model``, truth.
        digests: per sample what tells its input and truth from those of others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = read_json(folder / INDEX, "the pictures of an evaluation", "evaluate again")
        if fault := mismatch(index, Index, "it"):
            raise AnimegenError(f"'{folder / INDEX}' is damaged, {fault}: evaluate again.")
        self.columns: list[str] = index["columns"]
        self.digests: list[str] = index["samples"]
        # Columns are names of folders, which must not lead out of this one.
        if "model" not in self.columns[1:] or any(Path(column).name != column for column in self.columns):
            raise AnimegenError(f"'{folder / INDEX}' is damaged, its columns are {self.columns}: evaluate again.")

    @classmethod
    def of_run(cls, run: Path) -> Samples | None:
        """Return the pictures of a run folder, or ``None`` if it has none."""
        return cls(run / "samples") if (run / "samples" / INDEX).is_file() else None

    def picture(self, column: str, number: int) -> Tensor:
        """Return a picture (3, H, W) in [-1, 1]."""
        return read_image(self.folder / column / f"{number}.png").float() / 127.5 - 1


def side_by_side(
    runs: Sequence[tuple[str, Samples]], numbers: Sequence[int] | None = None, method: str = "model"
) -> tuple[list[str], list[list[Tensor]]]:
    """Return headers and rows (per sample: inputs, each run's output, truth) for `table.image_strip`.

    Args:
        runs: (title, pictures) of runs with the same test samples.
        numbers: which samples; ``None`` takes all. Those that a run does not have are left out.
        method: whose output is shown.
    """
    first = runs[0][1]
    place = first.columns.index(method)
    # Inputs come first and what is no method's comes last; baselines stand between inputs and the method.
    truths = first.columns[place + 1 :]
    count = min(len(samples.digests) for _, samples in runs)
    chosen = [number for number in (numbers if numbers is not None else range(count)) if 0 <= number < count]
    headers = [first.columns[0], *(title for title, _ in runs), *truths]
    rows = [
        [
            first.picture(first.columns[0], number),
            *(samples.picture(method, number) for _, samples in runs),
            *(first.picture(name, number) for name in truths),
        ]
        for number in chosen
    ]
    return headers, rows


def enlarged(rows: Sequence[Sequence[Tensor]], side: int = 96) -> list[list[Tensor]]:
    """Return pictures (3, H, W), those below ``side`` with each pixel repeated, so that titles fit."""
    width = min(picture.shape[-1] for row in rows for picture in row)
    factor = max(1, -(-side // width))
    return [[picture.repeat_interleave(factor, -1).repeat_interleave(factor, -2) for picture in row] for row in rows]
