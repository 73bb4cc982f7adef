"""Standard streams that are closed, full, without a reader, or limited in their characters."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from animegen.cli.streams import steady_streams
steady_streams()
steady_streams()
print("drawn: \\u732b \\udcff")
print("x" * 200_000, flush=True)
print("note: \\u732b", file=sys.stderr, flush=True)
sys.stdout.write("last")
open({result!r}, "w").write("complete")
"""


@pytest.mark.parametrize(
    ("streams", "shown"),
    [
        ("", "drawn: 猫 \\udcff"),
        ("| head -c 20", "drawn: 猫 \\udcff"),
        (">&-", ""),
        (">&- 2>&- <&-", ""),
        (">/dev/full 2>/dev/full", ""),
    ],
)
def test_a_result_survives_its_screen(streams: str, shown: str, tmp_path: Path) -> None:
    script, result = tmp_path / "script.py", tmp_path / "result"
    root = str(Path(__file__).parents[3])
    script.write_text(SCRIPT.format(root=root, result=str(result)))
    line = f"set -o pipefail; '{sys.executable}' '{script}' {streams}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, env={"PYTHONUTF8": "1"}, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert result.read_text() == "complete"
    assert ended.stdout.decode().startswith(shown)
    assert b"Traceback" not in ended.stderr
    assert b"ignored" not in ended.stderr


def test_characters_that_a_screen_lacks_are_escaped(tmp_path: Path) -> None:
    script, result = tmp_path / "script.py", tmp_path / "result"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[3]), result=str(result)))
    ended = subprocess.run(
        [sys.executable, str(script)], capture_output=True, env={"PYTHONIOENCODING": "latin-1"}, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith(b"drawn: \\u732b \\udcff\n")
    assert ended.stderr == b"note: \\u732b\n"
    assert ended.stdout.endswith(b"xlast") or ended.stdout.endswith(b"\nlast")
    assert result.read_text() == "complete"
