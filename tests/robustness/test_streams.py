"""Commands whose terminal is closed, gone or limited in its characters: all files are written, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest

from tests.support import run_verb, tiny, train

SCORED = ("experiment=toy/quickstart", "train_steps=1", "evaluate=true", "report=true", "logger=csv", "features=none")
#: Module and words of a command that prints tables and writes files.
COMMANDS = {
    "train": ("train", tiny(*SCORED)),
    "eval": ("evaluate", ["checkpoint={run}", "device=cpu", "samples=1", "features=none"]),
    "compare": ("compare", ["{run}"]),
}
#: Redirection in the shell, and encoding of the streams.
STREAMS = {
    "head": ("| head -1", "utf-8"),
    "closed": (">&-", "utf-8"),
    "all closed": (">&- 2>&- <&-", "utf-8"),
    "latin-1": ("", "latin-1"),
    "cp1252": ("", "cp1252"),  # of a redirection on Windows
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(*SCORED, output=tmp_path_factory.mktemp("runs") / "猫")


def files(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "tfevents" not in path.name
    }


@pytest.mark.parametrize(
    ("command", "stream"),
    [
        # tests/unit/cli/test_streams.py has the streams in a process that starts faster.
        pytest.param(
            *case, marks=() if case in (("compare", "all closed"), ("compare", "latin-1")) else pytest.mark.slow
        )
        for case in product(COMMANDS, STREAMS)
    ],
)
def test_a_result_survives_its_terminal(command: str, stream: str, run: Path, tmp_path: Path) -> None:
    module, words = COMMANDS[command]
    mine = [word.format(run=run) for word in words]
    assert run_verb(import_module(f"animegen.cli.{module}").main, *mine, f"output={tmp_path / 'expected'}") == 0
    redirection, encoding = STREAMS[stream]
    line = ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", sys.executable, "-m", "animegen", command]
    ended = subprocess.run(
        [*line, *mine, f"output={tmp_path / '猫'}"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"ignored" not in ended.stderr
    assert files(tmp_path / "猫") == files(tmp_path / "expected")
    for path in (tmp_path / "猫").rglob("*.json"):
        json.loads(path.read_text())
    if command == "train":
        assert json.loads((tmp_path / "猫" / "run.json").read_text())["status"] == "finished"
    if not redirection:
        assert b"\\u732b" in ended.stdout + ended.stderr
