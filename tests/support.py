"""What several tests share: running verbs as the command line does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from animegen import train as train_verb

#: Overrides that make any run small enough for a test.
TINY = ("size=tiny", "features=random", "device=cpu", "evaluate=false", "logger=none", "val_every=100", "threads=1")


def train(*overrides: str, output: Path | None = None) -> Path:
    """Run ``animegen train`` in this process; return the run folder."""
    words = [*overrides, *([f"output={output}"] if output else [])]
    argv = sys.argv
    try:
        code = train_verb.main(words)
    finally:
        sys.argv = argv
    assert code == 0, f"animegen train {' '.join(words)} ended with {code}"
    if output is not None:
        return output
    resumed = next(o.split("=", 1)[1] for o in overrides if o.startswith("resume="))
    return Path(resumed)


def command(*words: str, cwd: Path | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``animegen ...`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "animegen", *words], capture_output=True, text=True, cwd=cwd, timeout=timeout
    )


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """Check that a verb ended as a user's mistake does: exit code 2, one sentence, no traceback; return the sentence."""
    error = capsys.readouterr().err
    assert code == 2, error
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("animegen: ")]
    assert len(lines) == 1, error
    return lines[0]
