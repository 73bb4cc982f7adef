"""Atomic outputs: a file appears under its name only when it is complete."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from animegen.errors import AnimegenError


@contextmanager
def completed(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Yield a hidden name in the folder of ``path`` to write to; what lies there gets its name if the block ends well.

    Args:
        path: where the file is to be.
        folder: where the hidden one lies instead, in the same file system: a folder that is removed in any case, also
            after a process was killed.

    Raises:
        AnimegenError: if the file cannot be written.
    """
    # In the same folder: a rename is atomic only within one file system.
    partial = (folder or path.parent) / f".{uuid.uuid4().hex}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise AnimegenError(
            f"'{path}' cannot be written ({error.strerror or error}): check the folder, its permissions and the space"
            " left, or choose another output=."
        ) from error
    finally:
        with suppress(OSError):  # also where there is no such folder: what went wrong was told
            partial.unlink(missing_ok=True)
