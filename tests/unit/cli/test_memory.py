"""Tests of the memory that stays with a process."""

import subprocess
import sys

import pytest

from animegen.cli import main, memory

#: Prints the pages that the system provides for 64 MiB, freed and asked for again.
AGAIN = """
import resource
import numpy as np
from animegen.cli.memory import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for kept in (False, True):
    if kept:
        assert keep_freed_memory()
    pages()
    print(pages())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_used_again(monkeypatch):
    for name in memory._OWN:
        monkeypatch.delenv(name, raising=False)
    ran = subprocess.run([sys.executable, "-c", AGAIN], check=True, capture_output=True, text=True)
    usual, kept = map(int, ran.stdout.split())
    pages = 2**26 // 4096
    assert usual > pages // 600  # pages of 2 MiB at most
    assert kept <= usual // 20


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert memory.keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch):
    for name in memory._OWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_freed_memory() is False


def test_only_a_process_of_its_own_keeps_memory(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(main, "keep_freed_memory", lambda: calls.append(1))
    assert main.main(["bench", "--help"]) == 0  # called by a test, a notebook, a program
    for command, expected in (("completion", 0), ("bench", 1)):  # the first runs no network
        monkeypatch.setattr(sys, "argv", ["animegen", command, "--help"])
        assert main.main() == 0
        assert len(calls) == expected
