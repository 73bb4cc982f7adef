"""The files that a training reads, and whether they are still those of a checkpoint.

Which sample a step trains on depends on how many files there are and on their order, so a resumed run continues exactly
only with the same files.
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

#: Bytes of the longest list of files, some millions of them.
LIMIT = 2**28
#: Settings of data that change neither the samples nor their order.
CIRCUMSTANCES = ("num_workers", "pin_memory", "val_batch_size")


def training_files(view: Any) -> dict[str, int]:
    """Return path -> size in bytes of all files that a view reads.

    They are the ``files`` of its sources, however these are wrapped.
    """
    sizes = {}
    for path in _files(view, set()):
        with translate_io_errors(path):
            sizes[str(path)] = os.stat(path).st_size
    return sizes


def _files(part: Any, seen: set[int]) -> Iterator[Path]:
    """Yield the ``files`` of an object, or of the objects that it is made of."""
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
    """Return a list of files as one compressed text, for a checkpoint."""
    text = "".join(f"{size} {path}\0" for path, size in sorted(files.items()))
    return base64.b64encode(zlib.compress(text.encode("utf-8", "surrogateescape"))).decode("ascii")


def unpack(packed: str) -> dict[str, int]:
    """Return the list of files that :func:`pack` made a text of.

    Raises:
        AnimegenError: if the text is damaged, or would be larger than `LIMIT` bytes.
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
    """Refuse to continue a training with other files than those of its checkpoint.

    Args:
        then: the files of the checkpoint.
        now: the files there are.
        source: the checkpoint or its run.

    Raises:
        AnimegenError: says which files were added, removed or changed.
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
    """Tell whether two configurations of data describe the same samples in the same order."""
    return all(one.get(key) == other.get(key) for key in {*one, *other} - set(CIRCUMSTANCES))
