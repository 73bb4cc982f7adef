"""Reports never replace files of others."""

from __future__ import annotations

from pathlib import Path

import pytest

from animegen.errors import AnimegenError
from animegen.locks import locked
from animegen.reports.output import check_free, check_report_folder, write_files
from animegen.reports.page import page


def test_files_appear_together_and_leave_others_alone(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_files(folder, {"a": b"1", "b": b"1"}, overwrite=False)
    (folder / "mine").write_text("mine")
    (folder / "a").unlink()
    with pytest.raises(AnimegenError, match="b' exists"):
        write_files(folder, {"a": b"2", "b": b"2"}, overwrite=False)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"b": "1", "mine": "mine"}
    write_files(folder, {"a": b"2", "b": b"2"}, overwrite=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a": "2", "b": "2", "mine": "mine"}
    with locked(folder), pytest.raises(AnimegenError, match="Another command is at work"):
        write_files(folder, {"a": b"3"}, overwrite=True)


def test_only_an_earlier_report_is_replaced_unasked(tmp_path: Path) -> None:
    check_report_folder(tmp_path / "none")
    check_report_folder(tmp_path)
    (tmp_path / "report.html").write_text("<html>mine</html>")
    with pytest.raises(AnimegenError, match="contains files that are not a report"):
        check_report_folder(tmp_path)
    (tmp_path / "report.html").write_text(page("Run", "", [], [], {}))
    check_report_folder(tmp_path)


def test_names_beside_a_readme_of_people_must_be_free(tmp_path: Path) -> None:
    check_free(tmp_path, ["results.csv"])
    (tmp_path / "results.csv").touch()
    with pytest.raises(AnimegenError, match=r"results\.csv' exists and was not written by animegen compare"):
        check_free(tmp_path, ["results.csv"])
