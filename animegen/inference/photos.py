"""Stylization of single images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from animegen.errors import AnimegenError, FormatError
from animegen.inference.beside import photo_beside
from animegen.inference.summary import Summary
from animegen.inference.targets import Job
from animegen.media.photos import read_photo, shrink, write_photo


def stylize_photos(
    jobs: Sequence[Job],
    stylist: Callable[[Tensor], Tensor],
    summary: Summary,
    max_side: int | None = None,
    skip_broken: bool = True,
    overwrite: bool = False,
    progress: Callable[[], None] = lambda: None,
    compare: bool = False,
) -> None:
    """Stylise photos one after the other.

    Args:
        jobs: inputs and outputs.
        stylist: maps uint8 ``(3,H,W)`` to the same shape and type, e.g. a :class:`~animegen.inference.stylist.Stylist`.
        summary: gets the results.
        max_side: scale larger photos down first.
        skip_broken: skip photos that cannot be read or encoded, or are too large for the memory.
        overwrite: replace files, also those made meanwhile.
        progress: called after each photo.
        compare: put each photo to the left of its drawing.

    Raises:
        AnimegenError: if a result cannot be written, or at the first broken photo without ``skip_broken``.
    """
    for job in jobs:
        try:
            photo = read_photo(job.source)
            photo = shrink(photo, max_side) if max_side else photo
            drawn = stylist(photo.pixels)
            # The input is freed before the result is encoded.
            photo = photo_beside(photo, drawn) if compare else replace(photo, pixels=drawn)
            del drawn
        except AnimegenError as error:
            summary.skipped.append(reason_for(job, error, skip_broken, "images"))
            progress()
            continue
        try:
            write_photo(job.target, photo, overwrite)
        except FormatError as error:
            summary.skipped.append(reason_for(job, error, skip_broken, "images"))
        else:
            summary.done += 1
            summary.frames += 1
        progress()


def reason_for(job: Job, error: AnimegenError, skip_broken: bool, what: str) -> str:
    """Return why a file is skipped.

    Raises:
        AnimegenError: if it is not to be skipped.
    """
    reason = str(error) if str(job.source) in str(error) else f"'{job.source}': {error}"
    if not skip_broken:
        raise AnimegenError(f"{reason} (on_error=skip leaves such {what} out.)") from error
    return reason
