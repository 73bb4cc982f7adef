"""The notebook for Colab: it is kept without outputs, its commands compose, and it runs from top to bottom (slow)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from animegen.cli import main as cli
from tests.pages import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
SMALL = "size=tiny data.scenes=2 data.val_scenes=2 data.test_scenes=2 val_every=100 device=cpu threads=1"


def sources(notebook: dict[str, Any]) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_has_no_outputs_and_names_commands() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook["cells"])
    lines = [line.split() for text in sources(notebook) for line in text.splitlines() if line.startswith("!animegen ")]
    assert [words[1] for words in lines] == ["--version", "stylize", "train", "prepare", "stylize", "interpolate"]
    assert {words[1] for words in lines[1:]} <= set(cli.COMMANDS)


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("STEPS = 3000", "STEPS = 2").replace("train_steps=", f"{SMALL} train_steps=")
        cell.source = cell.source.replace("prepare toonworld=photo", "prepare toonworld=photo shots=[4,4] side=64")
    # The commands of the cells are those of this environment, and find the modules of this checkout.
    binaries = tmp_path / "bin"
    binaries.mkdir()
    (binaries / "animegen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m animegen "$@"\n')
    (binaries / "animegen").chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "animegen: " not in printed
    assert "(1, 3, 120, 160)" in printed
    assert all((tmp_path / name).exists() for name in ("drawn", "runs/first/strip.png", "anime.gif", "smooth.mp4"))
