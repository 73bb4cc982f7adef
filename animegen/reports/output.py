"""Write reports: several files that appear together and replace only those of an earlier report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from animegen.errors import AnimegenError
from animegen.files import hidden_name, publish_all, translate_io_errors
from animegen.locks import locked
from animegen.reports.page import GENERATOR


def write_files(folder: Path, files: Mapping[str, bytes], overwrite: bool) -> None:
    """Write files into a folder; they appear when all are complete, and other files stay.

    Args:
        folder: created if missing; locked while it is written.
        files: content by file name.
        overwrite: replace files of these names. Otherwise all of them appear, or none.

    Raises:
        AnimegenError: if they cannot be written, a file must not be replaced, or another command writes there.
    """
    with locked(folder, tidy=True), translate_io_errors(folder, "written"):
        hidden = hidden_name(folder / "report")
        try:
            hidden.mkdir()
            for name, data in files.items():
                (hidden / name).write_bytes(data)
            publish_all({hidden / name: folder / name for name in files}, overwrite)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def check_report_folder(folder: Path) -> None:
    """Check that the default folder of a report is empty or contains an earlier report.

    Raises:
        AnimegenError: if it contains other files.
    """
    if not folder.exists():
        return
    report = folder / "report.html"
    with translate_io_errors(folder):
        is_ours = report.is_file() and GENERATOR in report.read_text("utf-8", "replace")[:2000]
        if not is_ours and (not folder.is_dir() or any(folder.iterdir())):
            raise AnimegenError(f"'{folder}' contains files that are not a report: choose another output=.")


def check_free(folder: Path, names: Sequence[str]) -> None:
    """Check that no file of these names exists.

    Raises:
        AnimegenError: if one does.
    """
    taken = [name for name in names if (folder / name).exists()]
    if taken:
        raise AnimegenError(
            f"'{folder / taken[0]}' exists and was not written by animegen compare: choose another record=, or set"
            " overwrite=true."
        )
