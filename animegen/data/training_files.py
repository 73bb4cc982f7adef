"""List of the training files, compared when a run is resumed.

The samples of a step depend on the number and order of files, so a run resumes exactly only with the same files.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from animegen.errors import AnimegenError
from animegen.files import translate_io_errors

#: Largest size of a list of files in bytes, enough for millions of files.
LIMIT = 2**28
#: Data settings that change neither the samples nor their order.
CIRCUMSTANCES = ("num_workers", "pin_memory", "val_batch_size")


def training_files(view: Any) -> dict[str, int]:
    """Return path -> size in bytes of all files that a view reads: the ``files`` of its sources, at any depth."""
    sizes = {}
    for path in _files(view, set()):
        with translate_io_errors(path):
            sizes[str(path)] = os.stat(path).st_size
    return sizes


def _files(part: Any, seen: set[int]) -> Iterator[Path]:
    """Yield the ``files`` of an object or of its attributes, recursively."""
    if isinstance(part, dict):
        part = list(part.values())
    if isinstance(part, list | tuple):
        for each in part:
            yield from _files(each, seen)
    elif hasattr(part, "__dict__") and not isinstance(part, type | nn.Module | Tensor) and id(part) not in seen:
        seen.add(id(part))
        files = getattr(part, "files", None)
        if isinstance(files, list):
            yield from files
        else:
            yield from _files(vars(part), seen)


def pack(files: Mapping[str, int]) -> str:
    """Compress a list of files to a string for a checkpoint."""
    text = "".join(f"{size} {path}\0" for path, size in sorted(files.items()))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogateescape"))).decode("ascii")


def unpack(packed: str) -> dict[str, int]:
    """Return the list of files from the result of :func:`pack`.

    Raises:
        AnimegenError: if it is damaged or larger than `LIMIT` bytes.
    """
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(base64.b64decode(packed, validate=True), LIMIT)
        if not unpacking.eof:
            raise ValueError("it is too large")
        pairs = (line.partition(" ") for line in text.decode("utf-8", "surrogateescape").split("\0") if line)
        return {path: int(size) for size, _, path in pairs}
    except (ValueError, TypeError, zlib.error) as error:
        raise AnimegenError(
            f"The list of training files in the checkpoint is damaged ({error}): use another checkpoint of the run."
        ) from error


def check_same_files(then: Mapping[str, int], now: Mapping[str, int], source: str) -> None:
    """Check that the training files are those of the checkpoint.

    Args:
        then: the files of the checkpoint.
        now: the present files.
        source: the checkpoint or its run.

    Raises:
        AnimegenError: if they differ; lists added, removed and changed files.
    """
    changes = {
        "added": sorted(set(now) - set(then)),
        "removed": sorted(set(then) - set(now)),
        "changed in size": sorted(path for path in set(then) & set(now) if then[path] != now[path]),
    }
    found = [f"{len(paths)} {how} (such as '{paths[0]}')" for how, paths in changes.items() if paths]
    if found:
        raise AnimegenError(
            f"The training files are not those of '{source}': {', '.join(found)}. Restore them, or start a new run with"
            f" the trained weights: init={source}"
        )


def same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two data configurations give the same samples in the same order."""
    return all(one.get(key) == other.get(key) for key in {*one, *other} - set(CIRCUMSTANCES))
