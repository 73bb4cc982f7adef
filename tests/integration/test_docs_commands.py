"""Every command of README.md, the Makefile and docs/ runs, in the order of the page, small and without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, commands_of_make, inline_commands, run, run_page, workplace

__all__ = ["workplace"]


def test_the_commands_of_the_readme_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in inline_commands("README.md"):
        run(line)
    run_page("README.md", workplace, monkeypatch)
    assert {"drawn.jpg", "drawn.mp4", "styled.mp4"} <= {path.name for path in workplace.iterdir()}


@pytest.mark.slow
def test_the_commands_of_the_makefile_run(workplace: Path) -> None:
    shutil.copytree(ROOT / "docs/images/photos", workplace / "docs/images/photos")
    for line in commands_of_make():
        run(line)
    assert {"report", "smooth.mp4", "generated.gif"} <= {path.name for path in (workplace / "runs/demo").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_page(page, workplace, monkeypatch)
