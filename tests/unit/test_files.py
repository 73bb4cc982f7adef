"""Paths of users, exclusive publication, regular files only."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from animegen import files
from animegen.errors import AnimegenError

LONG = "x" * 300


def test_an_output_appears_when_it_is_complete_and_not_after_an_error(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.txt"
    with files.completed(target) as hidden:
        hidden.write_text("1")
        assert not target.exists()
        assert hidden.name.startswith(".")
        assert hidden.suffix == ".txt"
    assert target.read_text() == "1"
    with pytest.raises(ZeroDivisionError), files.completed(target) as hidden:
        hidden.write_text(str(1 / 0))
    assert target.read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_a_file_made_meanwhile_is_never_replaced(
    links: bool, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no hard links")

        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "a.txt"
    with files.completed(target, overwrite=False) as hidden:
        hidden.write_text("mine")
    assert target.read_text() == "mine"
    target.unlink()
    make = {
        "file": lambda: target.write_text("theirs"),
        "folder": target.mkdir,
        "dangling link": lambda: target.symlink_to("nowhere"),
    }[kind]

    def write() -> None:
        with files.completed(target, overwrite=False) as hidden:
            hidden.write_text("mine")
            make()

    with pytest.raises(AnimegenError, match=r"a\.txt' exists: choose another output= or set overwrite=true\."):
        write()
    assert os.listdir(tmp_path) == ["a.txt"]
    assert kind != "file" or target.read_text() == "theirs"
    assert kind != "dangling link" or target.is_symlink()


def test_several_files_appear_all_or_none(tmp_path: Path) -> None:
    hidden = {tmp_path / f".{name}": tmp_path / name for name in "abc"}
    for path in hidden:
        path.write_text("new")
    (tmp_path / "c").write_text("theirs")
    with pytest.raises(AnimegenError, match="c' exists"):
        files.publish_all(hidden, overwrite=False)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == ["c"]
    for path in hidden:
        path.write_text("new")
    files.publish_all(hidden, overwrite=True)
    assert {name: (tmp_path / name).read_text() for name in "abc"} == dict.fromkeys("abc", "new")


def test_a_folder_never_replaces_what_holds_something(tmp_path: Path) -> None:
    hidden, folder = tmp_path / ".hidden", tmp_path / "folder"
    (hidden / "inside").mkdir(parents=True)
    (folder / "theirs").mkdir(parents=True)
    with pytest.raises(AnimegenError, match="folder' exists: choose another output="):
        files.publish_folder(hidden, folder)
    (folder / "theirs").rmdir()
    files.publish_folder(hidden, folder)
    assert os.listdir(folder) == ["inside"]


def test_paths_of_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("input", "~/a") == tmp_path / "a"
    assert files.user_path("input", f"{tmp_path}/none/below") == tmp_path / "none" / "below"
    (tmp_path / "file").touch()
    assert files.user_path("input", f"{tmp_path}/file/below")  # that it is no folder is found where it is used
    (tmp_path / "loop").symlink_to("loop")
    for value, said in {
        "": "input= is empty",
        "a\0b": "input= contains a null byte",
        "~nobody-of-this-name/a": "unknown user",
        f"{tmp_path}/{LONG}": "300 bytes",
        f"{tmp_path}/{'ö' * 150}": "300 bytes",
        f"{tmp_path}/loop/a": "symbolic links form a loop",
    }.items():
        with pytest.raises(AnimegenError, match=said) as raised:
            files.user_path("input", value)
        assert "\n" not in str(raised.value)
        assert len(str(raised.value)) < 500


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xffa")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    monkey = os.getcwd()
    os.chdir(tmp_path)  # names of sockets are short
    try:
        listening.bind("socket")
    finally:
        os.chdir(monkey)
    assert files.read_bytes(tmp_path / "file") == b"\xffa"
    assert files.read_text(tmp_path / "file") == "\udcffa"
    for name, said in {
        "pipe": "is a named pipe, not a file",
        "link": "is a named pipe, not a file",
        "socket": "is a socket, not a file",
        "folder": "is a folder, not a file",
        "loop": "symbolic links form a loop",
        "none": "does not exist",
        LONG: "300 bytes",
    }.items():
        with pytest.raises(AnimegenError, match=said):
            files.read_bytes(tmp_path / name)
    with pytest.raises(AnimegenError, match="/dev/zero' is a device, not a file"):
        files.read_bytes("/dev/zero")
    listening.close()


def test_errors_of_the_system_name_the_path_and_the_remedy() -> None:
    for error, verb, said in (
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "written",
            "'a' cannot be written (No space left on device):",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "read", "(Permission denied): check its permissions."),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), "written", "not valid UTF-8"),
    ):
        with pytest.raises(AnimegenError) as raised, files.translate_io_errors("a", verb):
            raise error
        assert said in str(raised.value)


def test_comparing_paths_accepts_loops(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert files.is_inside(tmp_path / "link" / "a", tmp_path / "folder")
    assert not files.is_inside(tmp_path / "loop" / "a", tmp_path / "folder")
