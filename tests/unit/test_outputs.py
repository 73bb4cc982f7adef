"""Output folders: files of the user stay, and a replacement that is killed at any point leaves the old or the new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from animegen.errors import AnimegenError
from animegen.outputs import STATE, OutputFolder

ROOT = Path(__file__).parents[2]
OLD = {"run.json": "old", "checkpoints/last.ckpt": "old", "checkpoints/step-1.ckpt": "old", "strip.png": "old"}
NEW = {"run.json": "new", "config/config.yaml": "new", "checkpoints/last.ckpt": "new"}
MINE = {"notes.txt": "mine", "checkpoints/mine.txt": "mine", "config/mine.yaml": "mine"}
PATTERNS = ("run.json", "config/config.yaml", "checkpoints/last.ckpt", "checkpoints/step-*.ckpt", "strip.png")


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """Return the visible files with their text."""
    paths = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    return {name: path.read_text() for name, path in paths if "/." not in f"/{name}"}


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    """A folder with an old run in it and files of the user."""
    folder = OutputFolder(tmp_path / "out")
    with folder.held():
        folder.claim(PATTERNS)
        write(folder.path, OLD)
    write(folder.path, MINE)
    return folder


def replace(folder: OutputFolder) -> None:
    with folder.held(), folder.replacing(PATTERNS, until="checkpoints/last.ckpt") as replacement:
        write(folder.path, NEW)
        replacement.keep()


def test_only_recorded_files_are_replaced_or_removed(folder: OutputFolder) -> None:
    replace(folder)
    assert content(folder.path) == NEW | MINE
    with folder.held():
        folder.remove()
    assert content(folder.path) == MINE
    assert not list(folder.path.glob(".replaced-*"))
    assert not (folder.path / ".lock").exists()


def test_a_failure_returns_the_old_files(folder: OutputFolder) -> None:
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(RuntimeError):
        fail(folder)
    assert content(folder.path) == OLD | MINE
    assert sorted(folder.path.rglob("*")) == before
    replace(folder)
    assert content(folder.path) == NEW | MINE


def test_a_part_is_replaced_and_the_rest_stays(folder: OutputFolder) -> None:
    with folder.held(), folder.replacing(["strip.png"], old=["strip.png"], until="strip.png"):
        write(folder.path, {"strip.png": "new"})
    assert content(folder.path) == OLD | MINE | {"strip.png": "new"}
    assert set(folder.files()) == set(OLD)
    write(folder.path, {"checkpoints/step-2.ckpt": "later"})
    assert set(folder.files()) == {*OLD, "checkpoints/step-2.ckpt"}


@pytest.mark.parametrize(
    "name", ["run.json", "strip.png", "checkpoints", "config/config.yaml", "checkpoints/step-9.ckpt"]
)
def test_files_of_the_user_are_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, {name: "mine"})
    folder = OutputFolder(tmp_path)
    for action in (folder.check, folder.claim, folder.replacing):
        with pytest.raises(AnimegenError, match=r"is not replaced: move it"), folder.held():
            action(PATTERNS)
    assert content(tmp_path) == {name: "mine"}


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"elsewhere/last.ckpt": "mine"})
    folder = OutputFolder(tmp_path / "out")
    with folder.held():
        folder.claim(PATTERNS)
        (folder.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
        (folder.path / "strip.png").symlink_to(tmp_path / "elsewhere" / "last.ckpt")
        folder.remove()
    assert not os.path.lexists(folder.path / "strip.png")
    assert content(tmp_path / "elsewhere") == {"last.ckpt": "mine"}


def changed(**values: Any) -> dict[str, Any]:
    change = {"hidden": ".replaced-00000000", "moved": [], "present": [], "before": [], "until": None, "done": False}
    return {"files": [], "change": change | values}


@pytest.mark.parametrize(
    "state",
    [
        {"files": ["../mine.txt"], "change": None},
        {"files": ["/etc/*"], "change": None},
        {"files": [""], "change": None},
        changed(hidden=".."),
        changed(hidden=".replaced-00000000/../.."),
        changed(moved=["../mine.txt"]),
        changed(moved=["link/mine.txt"]),
        changed(hidden=".replaced-11111111", moved=["mine.txt"]),
        {"files": 3},
        [],
    ],
)
def test_a_record_from_elsewhere_cannot_lead_out_of_its_folder(state: Any, tmp_path: Path) -> None:
    write(tmp_path, {"mine.txt": "mine", "out/.replaced-00000000/mine.txt": "theirs"})
    out = tmp_path / "out"
    (out / "link").symlink_to(tmp_path)
    (out / ".replaced-11111111").symlink_to(tmp_path)
    (out / STATE).write_text(json.dumps(state))
    with pytest.raises(AnimegenError, match="cannot be used"):
        OutputFolder(out).recover()
    assert (tmp_path / "mine.txt").read_text() == "mine"


def dies_at(number: int, act: Callable[[], None]) -> bool:
    """Run ``act`` in a process that ends without a word at its nth change of the disk; tell whether it did."""
    child = os.fork()
    if child == 0:
        count = 0

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*arguments: Any, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    os._exit(9)
                return call(*arguments, **options)

            return counted

        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "open"):
            setattr(os, name, deadly(getattr(os, name)))
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def fail(folder: OutputFolder) -> None:
    """Replace everything but the last file, and fail."""
    with folder.held(), folder.replacing(PATTERNS, until="checkpoints/last.ckpt"):
        write(folder.path, {name: text for name, text in NEW.items() if name != "checkpoints/last.ckpt"})
        raise RuntimeError


def check_kills(act: Callable[[OutputFolder], None], place: Path) -> None:
    """Let an act die at each of its changes of the disk, and check what recovery makes of what is left."""
    ends: list[bool] = []
    for number in range(1, 1000):
        folder = OutputFolder(place / str(number))
        with folder.held():
            folder.claim(PATTERNS)
            write(folder.path, OLD)
        write(folder.path, MINE)
        if not dies_at(number, lambda folder=folder: act(folder)):
            break
        # Recovery may be killed as well.
        dies_at(1 + number % 7, folder.recover)
        folder.recover()
        found = content(folder.path)
        assert found in (OLD | MINE, NEW | MINE), number
        ends.append(found == NEW | MINE)
        assert not list(folder.path.glob(".replaced-*"))
    assert len(ends) > 20
    assert ends == sorted(ends)  # first the old, and from some point on the new
    assert any(ends) == (act is replace)


@pytest.mark.parametrize("act", ["replace", "fail"])
def test_killed_at_any_point_the_old_or_the_new_is_whole(act: str, tmp_path: Path) -> None:
    # In a process without PyTorch: it forks for each point, which takes the longer the more memory it has.
    script = (
        f"from pathlib import Path\nfrom tests.unit.test_outputs import *\ncheck_kills({act}, Path({str(tmp_path)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.iterdir())) > 20
