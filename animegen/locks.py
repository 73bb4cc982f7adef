"""Locks on outputs: a folder or a file belongs to one command at a time.

The library filelock does not serve here. It releases with ``flock(LOCK_UN)``, which also takes the lock from child
processes that inherited the descriptor; here a lock lasts until the last of them has closed it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from animegen.errors import AnimegenError
from animegen.files import shown, translate_io_errors

#: The file by which a command holds a folder.
LOCK = ".lock"
#: What ``flock`` reports on file systems that have no locks.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, tidy: bool = False, shared: bool = False) -> Iterator[int | None]:
    """Hold a folder for one command; yield the descriptor that child processes must inherit to hold it as well.

    Args:
        folder: created if missing. It is held as long as a process has locked the file ``.lock`` in it.
        tidy: remove that file at the end, and the folder if it was created here and is empty. Not for commands whose
            child processes may outlive them.
        shared: hold it together with other commands that share it. Waits while a command holds it alone.

    Yields:
        The descriptor; ``None`` where the system or the file system has no locks.

    Raises:
        AnimegenError: if another command, or a process that it left behind, holds the folder.
    """
    with translate_io_errors(folder, "written"):
        created = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with _held(folder / LOCK, folder, tidy, shared) as descriptor:
            yield descriptor
    finally:
        if tidy and created:
            with suppress(OSError):  # it is in use
                folder.rmdir()


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Hold the name of an output for one command, by a hidden file next to it that is removed at the end.

    Args:
        path: a file, or a folder that appears when it is complete. Missing folders above it are created.

    Raises:
        AnimegenError: if another command holds it, or the folder cannot be written.
    """
    # A hash, since the name itself may be as long as the file system allows.
    name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.lock"
    with translate_io_errors(path, "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _held(path.with_name(name), path, tidy=True):
        yield


@contextmanager
def _held(file: Path, what: Path, tidy: bool, shared: bool = False) -> Iterator[int | None]:
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    while True:
        with translate_io_errors(what, "written"):
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise AnimegenError(
                f"Another command is at work in '{shown(what)}': wait until it has ended, or choose another output=."
            ) from error
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            yield None
            return
        if _is_same(descriptor, file):
            break
        os.close(descriptor)  # a command that has just ended removed the file after it was opened here
    try:
        yield descriptor
    finally:
        if tidy:
            with suppress(OSError):
                if shared:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while others share it
                file.unlink(missing_ok=True)
        os.close(descriptor)


def _is_same(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(file))
    except FileNotFoundError:
        return False
