"""A folder belongs to one command at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from animegen.errors import AnimegenError

#: The file by which a command holds a folder.
LOCK = ".lock"


@contextmanager
def locked(folder: Path, tidy: bool = False) -> Iterator[int | None]:
    """Hold a folder for one command at a time; yield what its processes must inherit to hold it as well.

    Args:
        folder: it is created if need be; it is held as long as a process has locked the file ``.lock`` in it.
        tidy: remove that file at the end; not for commands whose processes may outlive them.

    Raises:
        AnimegenError: if another command, or a process that it left behind, is at work in the folder.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise AnimegenError(f"'{folder}' cannot be written ({error.strerror}): choose another output=.") from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AnimegenError(
                f"Another command is at work in '{folder}': wait until it has ended, or choose another output=."
            ) from error
        try:
            yield file
        finally:
            if tidy:
                (folder / LOCK).unlink(missing_ok=True)
    finally:
        os.close(file)
