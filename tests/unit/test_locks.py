"""Locks on folders and files, also across processes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from animegen.errors import AnimegenError
from animegen.locks import LOCK, locked, locked_file


def test_a_folder_belongs_to_one_command(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with locked(folder, tidy=True):
        with pytest.raises(AnimegenError, match=r"Another command is at work in .*folder'"), locked(folder):
            pass
        (folder / "result").touch()
    assert os.listdir(folder) == ["result"]
    with locked(folder):
        pass
    assert sorted(os.listdir(folder)) == [LOCK, "result"]


def test_a_folder_is_shared(tmp_path: Path) -> None:
    with locked(tmp_path, tidy=True, shared=True):
        with locked(tmp_path, tidy=True, shared=True):
            pass
        assert os.listdir(tmp_path) == [LOCK]
        with pytest.raises(AnimegenError, match="Another command is at work"), locked(tmp_path):
            pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_stays_empty_goes_again(tmp_path: Path) -> None:
    with locked(tmp_path / "new", tidy=True):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with locked(tmp_path / "old", tidy=True):
        pass
    assert os.listdir(tmp_path / "old") == []


@pytest.mark.parametrize("name", ["a.png", "x" * 255])
def test_a_file_belongs_to_one_command(name: str, tmp_path: Path) -> None:
    with locked_file(tmp_path / name), locked_file(tmp_path / "other"):
        with pytest.raises(AnimegenError, match="Another command is at work"), locked_file(tmp_path / name):
            pass
        assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    assert os.listdir(tmp_path) == []


def test_a_child_holds_the_lock_after_its_parent_has_released_it(tmp_path: Path) -> None:
    with locked(tmp_path) as descriptor:
        assert descriptor is not None
        wait = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(wait, stdin=subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(AnimegenError, match="Another command is at work"), locked(tmp_path):
        pass
    child.communicate(b"\n")
    with locked(tmp_path):
        pass


def test_file_systems_without_locks_are_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path) as descriptor, locked_file(tmp_path / "a"):
        assert descriptor is None


def test_a_name_that_cannot_be_locked_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for make in (locked, locked_file):
        with pytest.raises(AnimegenError, match="cannot be written"), make(tmp_path / "file" / "below"):
            pass
    with pytest.raises(AnimegenError, match="300 bytes"), locked(tmp_path / ("x" * 300)):
        pass
