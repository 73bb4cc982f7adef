"""Verbs in processes that may be killed, starved or fed with rubbish; they are forked, so that a start costs little."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = ("cli.training", "curation.prepare", "inference.generate", "inference.interpolate", "inference.stylize")
_CONTEXT.set_forkserver_preload(
    [*(f"animegen.{name}" for name in _PRELOADED), "tests.robustness.support", "tests.robustness.warm"]
)
TIMEOUT = 300.0


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; negative for a signal, ``None`` if it was killed here.
        said: all that it printed.
        seconds: how long it ran.
    """

    code: int | None
    said: str
    seconds: float


def start(
    module: str, commands: Sequence[Sequence[str]], log: Path, largest_file: int | None = None
) -> multiprocessing.process.BaseProcess:
    """Start a process that runs a verb with one list of words after the other.

    It ends with the largest exit code, and prints ``memory <MiB>`` at the end.

    Args:
        module: of the verb.
        commands: the words of each.
        log: file that gets what is printed.
        largest_file: no file may grow beyond so many bytes, as if the disk were full.
    """
    process = _CONTEXT.Process(target=_run, args=(module, commands, str(log), largest_file))
    process.start()
    return process


def _run(module: str, commands: Sequence[Sequence[str]], log: str, largest_file: int | None) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.setpgid(0, 0)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))  # Python ignores the signal
    main = import_module(module).main
    code = max(main(list(words)) for words in commands)
    print(f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def finish(
    process: multiprocessing.process.BaseProcess, log: Path, seconds: float | None = None, most: float = TIMEOUT
) -> Ended:
    """Wait for a process; kill it after ``seconds``, or fail if it takes longer than any should (``most``)."""
    began = time.monotonic()
    process.join(most if seconds is None else seconds)
    killed = process.is_alive()
    if killed:
        process.kill()
        process.join()
    said = log.read_text(errors="backslashreplace") if log.exists() else ""
    assert not killed or seconds is not None, f"it hangs:\n{said}"
    return Ended(None if killed else process.exitcode, said, time.monotonic() - began)


def run(
    module: str, commands: Sequence[Sequence[str]], log: Path, largest_file: int | None = None, files: int = 1
) -> Ended:
    """Run a verb to its end; see :func:`start`. It may take longer the more ``files`` there are for each command."""
    return finish(start(module, commands, log, largest_file), log, most=TIMEOUT + 5.0 * len(commands) * files)


def kill_again_and_again(
    module: str,
    words: Callable[[], Sequence[str]],
    kills: int,
    log: Path,
    killed: Callable[[], None],
    finished: Callable[[], None],
) -> str:
    """Kill a verb (SIGKILL) at random moments until that was done so many times.

    Args:
        module: of the verb.
        words: returns the words of the next attempt.
        kills: how often.
        log: file that gets what is printed.
        killed: checks what a killed process has left behind.
        finished: checks the result of a process that was faster, and removes it.

    Returns:
        A line with the counts.
    """
    draw = random.Random(0)
    whole = run(module, [words()], log)
    assert whole.code == 0, whole.said
    finished()
    done = ends = 0
    while done < kills:
        ended = finish(start(module, [words()], log), log, draw.uniform(0.02, 1.1) * whole.seconds)
        if ended.code is None:
            done += 1
            killed()
        else:
            assert ended.code == 0, ended.said
            ends += 1
            finished()
        assert ends <= 5 * kills + 10, "it is too fast to be killed"
    last = run(module, [words()], log)
    assert last.code == 0, last.said
    finished()
    return f"{module}: {done} kills, {ends + 2} results, all good"


def assert_calm(ended: Ended, memory: int = 3000) -> None:
    """Check that a process ended as one may: no traceback, no signal, little memory (MiB)."""
    assert "Traceback" not in ended.said, ended.said
    assert ended.code in (0, 1, 2), f"{ended.code}: {ended.said}"
    used = int(ended.said.rpartition("memory ")[2].split()[0])
    assert used < memory, f"{used} MiB"
