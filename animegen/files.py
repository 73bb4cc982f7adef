"""Access to files that users name: readable errors, regular files only, outputs that appear complete or not at all."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from animegen.errors import AnimegenError, FormatError, did_you_mean

#: Characters of a path that an error message shows; longer paths are abbreviated in the middle.
SHOWN = 200


# --- errors ---------------------------------------------------------------------------------------------------


@contextmanager
def translate_io_errors(path: Path | str, verb: str = "read", also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn errors of the system and of text encoding into one sentence that names a file.

    Every access to a path that a user gave runs inside this context.

    Args:
        path: the file or folder that the block reads or writes.
        verb: ``read`` or ``written``.
        also: further exception types of a library, e.g. FFmpeg's.

    Raises:
        FormatError: in place of errors that the library, not the system, raises while it writes.
        AnimegenError: in place of other errors: `OSError`, `UnicodeError` and the types in ``also``.
    """
    kinds: tuple[type[Exception], ...] = (OSError, UnicodeError, *also)
    try:
        yield
    except kinds as error:
        system = isinstance(error, UnicodeError) or (isinstance(error, OSError) and error.errno is not None)
        if verb == "written" and not system:
            reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
            raise FormatError(
                f"'{shown(path)}' cannot be encoded ({reason}): choose another format, or a smaller size."
            ) from error
        raise AnimegenError(io_error_message(error, path, verb)) from error


def io_error_message(error: BaseException, path: Path | str, verb: str = "read") -> str:
    """Return a sentence for an error of the system: the path, the reason and the remedy.

    Args:
        error: the exception.
        path: the file or folder concerned.
        verb: ``read`` or ``written``.
    """
    code = getattr(error, "errno", None)
    name = f"'{shown(path)}'"
    if code == errno.ENAMETOOLONG:
        longest = max(len(os.fsencode(part)) for part in Path(path).parts)
        return f"{name} cannot be {verb}: its longest part has {longest} bytes, usually 255 are allowed; shorten it."
    if code == errno.ELOOP:
        return f"{name} cannot be {verb}: its symbolic links form a loop; name the file itself."
    if isinstance(error, UnicodeError):
        return f"{name} cannot be {verb}: a file name is not valid UTF-8 ({error}); rename the file."
    if code == errno.ENOENT and verb == "read":
        return f"{name} does not exist: check the path.{_similar_names(Path(path))}"
    reason = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())
    if verb == "read":
        remedy = "check its permissions" if code in (errno.EACCES, errno.EPERM) else "check the path"
    else:
        remedy = "check the folder, its permissions and the space left, or choose another output="
    return f"{name} cannot be {verb} ({reason}): {remedy}."


def _similar_names(path: Path) -> str:
    try:
        return did_you_mean(path.name, os.listdir(path.parent))
    except OSError:
        return ""


def shown(path: Path | str) -> str:
    """Return a path for a message, abbreviated in the middle if it is longer than `SHOWN`."""
    text = str(path)
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 4 :]}"


# --- paths ----------------------------------------------------------------------------------------------------


def user_path(key: str, value: str | os.PathLike[str]) -> Path:
    """Return the path that a user gave for a key of a command, with ``~`` expanded.

    Raises:
        AnimegenError: if it is empty (often an unset variable of the shell), too long for the file system, a loop of
            symbolic links, or inside a folder that may not be searched. A path that does not exist passes.
    """
    text = os.fspath(value)
    if not text:
        raise AnimegenError(f"{key}= is empty: give a path, or leave it out (is a variable of the shell unset?).")
    if "\0" in text:
        raise AnimegenError(f"{key}= contains a null byte: give a path.")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise AnimegenError(f"{key}='{shown(text)}' names an unknown user: write the path in full.") from error
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise AnimegenError(f"{key}={io_error_message(error, path)}") from error
    return path


def real_path(path: Path | str) -> str:
    """Return a path without symbolic links, for comparisons; unlike `Path.resolve` it accepts loops."""
    return os.path.realpath(path)


def is_utf8(path: Path | str) -> bool:
    """Return whether a path is valid UTF-8, as some libraries demand."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_inside(path: Path | str, folder: Path | str) -> bool:
    """Return whether a path is a folder or below it, after resolving symbolic links."""
    return Path(real_path(path)).is_relative_to(real_path(folder))


# --- reading --------------------------------------------------------------------------------------------------

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular_file(path: Path | str) -> os.stat_result:
    """Return the facts of a file after checking that it is one; pipes, sockets and devices must not even be opened.

    Raises:
        AnimegenError: if the path does not exist, cannot be examined, or is no regular file.
    """
    with translate_io_errors(path):
        facts = os.stat(path)
    if not stat.S_ISREG(facts.st_mode):
        raise AnimegenError(f"'{shown(path)}' is {_kind(facts)}, not a file: name a file, or remove it.")
    return facts


def existing_folder(path: Path | str) -> None:
    """Check that a folder exists.

    Raises:
        AnimegenError: if the path does not exist, cannot be examined, or is no folder.
    """
    with translate_io_errors(path):
        facts = os.stat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise AnimegenError(f"'{shown(path)}' is {_kind(facts)}, not a folder: name a folder.")


def _kind(facts: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(facts.st_mode), "special")


def read_bytes(path: Path | str) -> bytes:
    """Return the content of a regular file.

    Raises:
        AnimegenError: if it cannot be read.
    """
    regular_file(path)
    with translate_io_errors(path):
        return Path(path).read_bytes()


def read_text(path: Path | str) -> str:
    """Return the text of a regular UTF-8 file; bytes that are not UTF-8 are kept as in file names (surrogates).

    Raises:
        AnimegenError: if it cannot be read.
    """
    return read_bytes(path).decode("utf-8", "surrogateescape")


# --- writing --------------------------------------------------------------------------------------------------


@contextmanager
def completed(path: Path, folder: Path | None = None, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a hidden name to write to; the file gets the name ``path`` if the block succeeds.

    Args:
        path: path of the file; missing folders are created.
        folder: folder of the hidden file, on the same file system: one that is removed in any case, also after the
            process was killed. ``None``: the folder of ``path``.
        overwrite: replace a file of that name, also one created meanwhile.

    Raises:
        AnimegenError: if the file cannot be written, or exists and must not be replaced.
    """
    # In the same folder: a rename is atomic only within one file system.
    partial = hidden_name(folder / path.name if folder else path)
    with translate_io_errors(path, "written"):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            publish(partial, path, overwrite)
        finally:
            with suppress(OSError):  # the folder may be missing; that error is reported already
                partial.unlink(missing_ok=True)


def hidden_name(path: Path) -> Path:
    """Return an unused hidden name next to ``path`` with its suffix, for an incomplete file or folder."""
    return path.with_name(f".{uuid.uuid4().hex}{path.suffix if len(path.suffix) < 16 else ''}")


def publish(hidden: Path, path: Path, overwrite: bool) -> None:
    """Rename a complete file in one step.

    Args:
        hidden: the file, on the same file system.
        path: its new name.
        overwrite: replace a file of that name. Otherwise no file is replaced, not even one created meanwhile.

    Raises:
        AnimegenError: if a file of that name exists and must not be replaced.
        OSError: if it cannot be renamed.
    """
    if overwrite:
        os.replace(hidden, path)
        return
    try:
        _rename_exclusively(hidden, path)
    except FileExistsError as error:
        raise exists_error(path) from error


def publish_all(files: Mapping[Path, Path], overwrite: bool) -> None:
    """Rename several complete files, hidden name -> name; without ``overwrite`` all of them or none.

    Raises:
        AnimegenError: if one of the names exists and must not be replaced.
        OSError: if a file cannot be renamed.
    """
    done: list[Path] = []
    try:
        for hidden, path in files.items():
            publish(hidden, path, overwrite)
            done.append(path)
    except BaseException:
        for path in done if not overwrite else ():
            path.unlink(missing_ok=True)
        raise


def publish_folder(hidden: Path, folder: Path) -> None:
    """Rename a complete folder in one step; an existing folder is replaced only if it is empty.

    Raises:
        AnimegenError: if something of that name exists.
        OSError: if it cannot be renamed.
    """
    try:
        os.rename(hidden, folder)
    except OSError as error:
        if os.path.lexists(folder):
            raise AnimegenError(f"'{shown(folder)}' exists: choose another output=.") from error
        raise


def check_outputs(paths: Collection[Path], overwrite: bool, folders: bool = False) -> None:
    """Check before any work that outputs can be written where they belong; :func:`publish` checks the names again.

    Args:
        paths: the files that will be written.
        overwrite: they may replace files.
        folders: they may be folders that exist, whose files are replaced.

    Raises:
        AnimegenError: if some exist and must not be replaced or are no files, or a folder cannot be written.
    """
    existing = [path for path in paths if os.path.lexists(path)]
    if existing and not overwrite:
        if len(existing) == 1:
            raise exists_error(existing[0])
        raise AnimegenError(
            f"'{shown(existing[0])}' and {len(existing) - 1} more of {len(paths)} exist: choose another output= or set"
            " overwrite=true."
        )
    allowed = (stat.S_IFREG, stat.S_IFLNK, *((stat.S_IFDIR,) if folders else ()))
    for path in existing:
        facts = path.lstat()
        if stat.S_IFMT(facts.st_mode) not in allowed:
            raise AnimegenError(f"'{shown(path)}' is {_kind(facts)}, not a file: choose another output=.")
    for folder in {path.parent for path in paths}:
        place = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "cannot be written to" if place.is_dir() else "is not a folder"
            raise AnimegenError(
                f"'{shown(folder)}' cannot take the results, since '{shown(place)}' {what}: choose another output=."
            )


def check_new_folder(folder: Path) -> None:
    """Check before any work that a folder can be created; :func:`publish_folder` checks the name again.

    Raises:
        AnimegenError: if something of that name exists, or the folder cannot be written.
    """
    if os.path.lexists(folder):
        raise AnimegenError(f"'{shown(folder)}' exists: choose another output=.")
    check_outputs([folder], overwrite=False)


def exists_error(path: Path) -> AnimegenError:
    """Return the error for an output that exists and could be replaced."""
    return AnimegenError(f"'{shown(path)}' exists: choose another output= or set overwrite=true.")


def _rename_exclusively(hidden: Path, path: Path) -> None:
    if os.name == "nt":
        os.rename(hidden, path)  # never replaces anything on Windows
        return
    try:
        os.link(hidden, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: reserve the name with an empty file
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        try:
            os.replace(hidden, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    else:
        hidden.unlink()
