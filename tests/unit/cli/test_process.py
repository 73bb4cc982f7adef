"""Tests of the settings of a process that runs networks."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from animegen.cli import main, process

#: Prints the pages that the system provides for 64 MiB, freed and asked for again.
AGAIN = """
import resource
import numpy as np
from animegen.cli.process import keep_freed_memory

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
    for name in process._OWN_MEMORY:
        monkeypatch.delenv(name, raising=False)
    ran = subprocess.run([sys.executable, "-c", AGAIN], check=True, capture_output=True, text=True)
    usual, kept = map(int, ran.stdout.split())
    pages = 2**26 // 4096
    assert usual > pages // 600  # pages of 2 MiB at most
    assert kept <= usual // 20


def test_settings_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert process.keep_freed_memory() is False


def test_other_c_libraries_are_left_alone(monkeypatch):
    for name in process._OWN_MEMORY:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: object())
    assert process.keep_freed_memory() is False


class _LibraryWithLimit:
    """A C library that refuses to keep blocks of more than 32 MiB, as older versions of glibc do."""

    def __init__(self):
        self.settings = {}

    def mallopt(self, parameter, value):
        if parameter == -3 and value > 2**25:
            return 0
        self.settings[parameter] = value
        return 1


def test_nothing_is_set_if_the_library_refuses_large_blocks(monkeypatch):
    for name in process._OWN_MEMORY:
        monkeypatch.delenv(name, raising=False)
    library = _LibraryWithLimit()
    monkeypatch.setattr(process.ctypes, "CDLL", lambda name: library)
    assert process.keep_freed_memory() is False
    assert library.settings == {}  # the trim threshold alone would keep the other one at 128 KiB


#: Ends with the OpenMP of torch, which writes its settings to the error stream when it is loaded.
COMMAND = """
import ctypes, sys
from animegen.cli.main import main
sys.argv = ["animegen", "stylize", "--help"]
main()
ctypes.CDLL({openmp!r})
"""


def test_threads_of_torch_wait_briefly():
    openmp = next((Path(torch.__file__).parent / "lib").glob("libgomp*"), None)
    if openmp is None:
        pytest.skip("this torch has no OpenMP of GNU with it")
    own = {name: value for name, value in os.environ.items() if name not in process._OWN_WAITING}
    shown = own | {"OMP_DISPLAY_ENV": "VERBOSE"}
    ran = subprocess.run(
        [sys.executable, "-c", COMMAND.format(openmp=str(openmp))],
        check=True,
        capture_output=True,
        text=True,
        env=shown,
    )
    assert f"GOMP_SPINCOUNT = '{process.SPIN}'" in ran.stderr


def test_the_way_of_waiting_that_a_user_sets_stays(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    process.wait_briefly()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    process.wait_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"


def test_only_a_process_of_its_own_is_set_up(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(main, "keep_freed_memory", lambda: calls.append("memory"))
    monkeypatch.setattr(main, "wait_briefly", lambda: calls.append("waiting"))
    assert main.main(["bench", "--help"]) == 0  # called by a test, a notebook, a program
    # The first runs no network, and only the last one encodes a film beside a network with large layers.
    for command, expected in (("completion", []), ("bench", ["memory"]), ("stylize", ["waiting", "memory"])):
        calls.clear()
        monkeypatch.setattr(sys, "argv", ["animegen", command, "--help"])
        assert main.main() == 0
        assert calls == expected


def test_first_imports_are_not_searched_for_garbage(monkeypatch):
    states = []
    monkeypatch.setattr(gc, "freeze", lambda: states.append(gc.isenabled()))
    with process.first_imports():  # PyTorch is known here
        assert gc.isenabled()
    assert states == []
    monkeypatch.delitem(sys.modules, "torch")
    with process.first_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), process.first_imports():
        raise ImportError
    assert gc.isenabled()
    assert states == [False, False]  # what was imported is left out before the collector runs again
    gc.disable()
    try:
        with process.first_imports():
            pass
        assert not gc.isenabled()  # as the user had it
    finally:
        gc.enable()
