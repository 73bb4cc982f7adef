"""The wheel that people install holds the configurations and works where there is no clone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("animegen", "conf", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("setuptools", minversion="77")
    clone, target = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, clone / part)
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
    built = subprocess.run([sys.executable, "-c", build, str(target)], cwd=clone, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (file,) = target.glob("animegen-*.whl")
    return file


def test_every_configuration_is_in_the_wheel(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("animegen/conf/")}
    here = {f"animegen/conf/{path.relative_to(ROOT / 'conf').as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert here <= inside
    assert "animegen/conf/__init__.py" in inside


def test_the_looks_are_in_the_wheel(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "animegen/weights").glob("*/*")}
    assert here <= inside
    assert "animegen/weights/cel/look.ckpt" in here


def test_an_unpacked_wheel_composes_from_any_directory(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "elsewhere").mkdir()
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import animegen;"
        " assert animegen.__file__.startswith(sys.path[0]), animegen.__file__;"
        " from animegen.cli.main import main; sys.exit(main())"
    )
    words = ["list", "experiments", "animegan/quickstart"]
    told = subprocess.run(
        # Isolated, so that neither the clone nor its editable install is found first.
        [sys.executable, "-I", "-c", program, str(tmp_path / "site"), *words],
        cwd=tmp_path / "elsewhere",
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "animegan/quickstart" in told.stdout
