"""Output folders: a record of which files in them commands wrote, and their replacement without loss.

Only recorded files are ever moved or removed; all other files in the folder belong to the user. A replacement is kept
in the record until it is complete, so that the next command can finish or undo the changes of a killed one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType

from animegen.errors import AnimegenError
from animegen.files import completed, shown, translate_io_errors
from animegen.locks import locked

#: The record in an output folder.
STATE = ".animegen.json"
#: How the hidden folder begins that holds replaced files.
REPLACED = ".replaced-"


@dataclass(frozen=True)
class _Change:
    """A replacement that is not complete.

    Attributes:
        hidden: name of the hidden folder for the old files.
        moved: the old files, which move there.
        present: recorded files that stay where they are.
        before: the patterns recorded before.
        until: the file with which the new files are complete; ``None`` if only the command itself can tell.
        done: the new files are complete, only the old ones are not all removed.
    """

    hidden: str
    moved: list[str]
    present: list[str]
    before: list[str]
    until: str | None
    done: bool = False


class OutputFolder:
    """A folder that commands write into.

    Files are named by patterns relative to the folder, such as ``run.json`` or ``previews/step-*.png``. All methods
    that change something expect the folder to be held, see :meth:`held`.

    Args:
        path: the folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one command, after finishing or undoing the changes of a killed command.

        Raises:
            AnimegenError: if another command holds it, or it cannot be written.
        """
        with locked(self.path, tidy=True):
            self._settle()
            try:
                yield
            finally:
                self._drop_empty_record()

    def recover(self) -> None:
        """Finish or undo the changes of a killed command, unless a command is active; for commands that only read."""
        if self._load()[1] is not None:
            # Without a lock it is unknown whether a command is active.
            with suppress(AnimegenError), locked(self.path, tidy=True) as lock:
                if lock is not None:
                    self._settle()

    def files(self, patterns: Sequence[str] | None = None) -> list[str]:
        """Return the recorded files that exist, all or those that match ``patterns``."""
        recorded = self._matching(self._load()[0])
        return recorded if patterns is None else [name for name in self._matching(patterns) if name in set(recorded)]

    def check(self, patterns: Sequence[str]) -> None:
        """Refuse to write where files of the user are.

        Raises:
            AnimegenError: names a file that matches ``patterns`` and is not recorded.
        """
        recorded = set(self.files())
        for pattern in patterns:
            for parent in list(PurePosixPath(pattern).parents)[-2::-1]:
                if "*" not in str(parent) and (self.path / parent).exists() and not (self.path / parent).is_dir():
                    raise _foreign(self.path / parent)
        for name in [name for pattern in patterns for name in self._paths(pattern)]:
            if name not in recorded:
                raise _foreign(self.path / name)

    def claim(self, patterns: Sequence[str], check: bool = True) -> None:
        """Record the files that are going to be written.

        Args:
            patterns: the files.
            check: refuse files that exist and are not recorded. Without it they count as written by a command.

        Raises:
            AnimegenError: if a file of the user has one of these names, or the folder cannot be written.
        """
        if check:
            self.check(patterns)
        recorded = self._load()[0]
        if set(patterns) - set(recorded):
            self._save([*recorded, *patterns], None)

    def remove(self, patterns: Sequence[str] | None = None) -> None:
        """Remove recorded files, all or those that match ``patterns``."""
        names = self.files(patterns)
        with translate_io_errors(self.path, "written"):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
        self._prune(names)

    def replacing(
        self, patterns: Sequence[str], old: Sequence[str] | None = None, until: str | None = None
    ) -> Replacement:
        """Set recorded files aside for new ones.

        Args:
            patterns: the files that are going to be written; they are recorded.
            old: the recorded files that they replace; ``None`` means all.
            until: the new file with which they are complete. Where it exists after a kill, the new files stay, else
                the old ones return. ``None``: they return unless :meth:`Replacement.keep` was called.

        Raises:
            AnimegenError: if a file of the user has one of these names, or the folder cannot be written; the folder is
                then as before.
        """
        self.check(patterns)
        before, pending = self._load()
        assert pending is None, "one replacement at a time"
        moved = self.files(old)
        present = [name for name in self.files() if name not in set(moved)]
        change = _Change(f"{REPLACED}{uuid.uuid4().hex[:8]}", moved, present, before, until)
        replacement = Replacement(self, change)
        try:
            with translate_io_errors(self.path, "written"):
                self._save([*([] if old is None else before), *patterns], change)
                for name in moved:
                    _move(self.path / name, self.path / change.hidden / name)
        except BaseException:
            replacement.undo()
            raise
        return replacement

    # --- the record ---------------------------------------------------------------------------------------------

    def _load(self) -> tuple[list[str], _Change | None]:
        """Return the recorded patterns, and the replacement that is not complete."""
        try:
            state = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            change = _Change(**state["change"]) if state["change"] else None
            patterns = [str(pattern) for pattern in state["files"]]
            self._check_record(patterns, change)
            return patterns, change
        except (FileNotFoundError, NotADirectoryError):
            return [], None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AnimegenError(
                f"'{shown(self.path / STATE)}', the record of an output folder, cannot be used ({error}): choose"
                " another folder, or remove that file if nothing in the folder is to be replaced."
            ) from error

    def _check_record(self, patterns: Sequence[str], change: _Change | None) -> None:
        """Reject a record that leads out of the folder, which may come from anyone."""
        names, moved = [*patterns], []
        if change is not None:
            if not re.fullmatch(re.escape(REPLACED) + "[0-9a-f]{8}", change.hidden):
                raise ValueError(f"its hidden folder is called '{change.hidden}'")
            moved = [*change.moved, *(f"{change.hidden}/{name}" for name in change.moved)]
            names += [*moved, *change.present, *change.before, *([change.until] if change.until else [])]
        for name in names:
            path = PurePosixPath(name)
            if not path.parts or ".." in path.parts or path.is_absolute() or "\0" in name:
                raise ValueError(f"it names '{name}'")
        for name in moved:
            if self._through_link(name):
                raise ValueError(f"a folder of '{name}' is a symbolic link")

    def _through_link(self, name: str) -> bool:
        """Return whether one of the folders of a file is a symbolic link."""
        return any((self.path / parent).is_symlink() for parent in PurePosixPath(name).parents if parent.name)

    def _save(self, patterns: Sequence[str], change: _Change | None) -> None:
        state = {"files": list(dict.fromkeys(patterns)), "change": asdict(change) if change else None}
        with completed(self.path / STATE) as hidden:
            hidden.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")

    def _drop_empty_record(self) -> None:
        """Remove a record of which no file exists, as after a command that failed before it wrote any."""
        with suppress(AnimegenError, OSError):
            if self._load()[1] is None and not self.files():
                (self.path / STATE).unlink(missing_ok=True)

    def _paths(self, pattern: str) -> list[str]:
        """Return what exists of a pattern, folders and dangling links too, but nothing in folders behind links."""
        if "*" in pattern:
            names = [path.relative_to(self.path).as_posix() for path in sorted(self.path.glob(pattern))]
        else:
            names = [pattern] if os.path.lexists(self.path / pattern) else []
        return [name for name in names if not self._through_link(name)]

    def _matching(self, patterns: Sequence[str]) -> list[str]:
        """Return the files that match any of the patterns, each once."""
        names = dict.fromkeys(name for pattern in patterns for name in self._paths(pattern))
        return [name for name in names if (self.path / name).is_symlink() or not (self.path / name).is_dir()]

    # --- replacements -------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Finish or undo a replacement that a killed command has left."""
        change = self._load()[1]
        if change is not None:
            self._finish(change) if change.done or self._is_complete(change) else self._undo(change)

    def _is_complete(self, change: _Change) -> bool:
        """Return whether the new files of a replacement are complete."""
        if change.until is None or change.until in change.present or not (self.path / change.until).is_file():
            return False
        # A file that has not been moved yet, or is back, is the old one.
        return change.until not in change.moved or os.path.lexists(self.path / change.hidden / change.until)

    def _finish(self, change: _Change) -> None:
        """Remove the old files."""
        patterns = self._load()[0]
        if not change.done:
            self._save(patterns, replace(change, done=True))
        shutil.rmtree(self.path / change.hidden, ignore_errors=True)
        self._prune(change.moved)
        if not (self.path / change.hidden).exists():
            self._save(patterns, None)

    def _undo(self, change: _Change) -> None:
        """Remove the new files and return the old ones."""
        present, moved, hidden = set(change.present), set(change.moved), self.path / change.hidden
        new = [
            name
            for name in self.files()
            # An old file that has not been moved yet, or is back, stays.
            if name not in present and (name not in moved or os.path.lexists(hidden / name))
        ]
        with translate_io_errors(self.path, "written"):
            for name in new:
                (self.path / name).unlink(missing_ok=True)
            for name in change.moved:
                if os.path.lexists(hidden / name):
                    _move(hidden / name, self.path / name)
        self._prune(new)
        shutil.rmtree(hidden, ignore_errors=True)  # it holds no file any more
        self._save(change.before, None)

    def _prune(self, names: Sequence[str]) -> None:
        """Remove the folders of removed files that are empty now."""
        parents = {parent for name in names for parent in PurePosixPath(name).parents if parent.name}
        for parent in sorted(parents, key=lambda parent: -len(parent.parts)):
            with suppress(OSError):  # it is not empty, or was never made
                (self.path / parent).rmdir()


class Replacement:
    """New files in the place of old ones, which return unless the new ones are complete or kept.

    Used as a context manager, it keeps the new files if the block succeeds.
    """

    def __init__(self, folder: OutputFolder, change: _Change) -> None:
        self._folder, self._change = folder, change
        self._open = True

    @classmethod
    def none(cls) -> Replacement:
        """Return one that replaces nothing, for processes that do not write."""
        nothing = cls(OutputFolder("."), _Change("", [], [], [], None))
        nothing._open = False
        return nothing

    def keep(self) -> None:
        """Remove the old files; calling it again changes nothing."""
        if self._open:
            self._open = False
            self._folder._finish(self._change)

    def undo(self) -> None:
        """Return the old files; calling it after :meth:`keep` changes nothing."""
        if self._open:
            self._open = False
            self._folder._undo(self._change)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or (self._open and self._folder._is_complete(self._change)):
            self.keep()
        else:
            self.undo()


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)


def _foreign(path: Path) -> AnimegenError:
    return AnimegenError(
        f"'{shown(path)}' exists and was not written by a command that recorded it, so it is not replaced: move it, or"
        " choose another output=."
    )
