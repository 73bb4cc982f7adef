"""Run commands as processes of their own, several at a time, each with its share of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from animegen.launch.slots import Slot

POLL_SECONDS = 0.1
PLAIN_SECONDS = 60.0
_STEP = re.compile(r"^step (\d+)(?:/\d+)?  ", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """A command to run.

    Attributes:
        name: shown to the user.
        command: program and arguments.
        log: file that its output is appended to.
        steps: number of train steps; the command reports them in lines ``step <n>``.
        folder: working directory; ``None`` is the current one.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    steps: int = 0
    folder: Path | None = None


@dataclass(frozen=True)
class Failure:
    """A failed command, and the last line of its output."""

    task: Task
    reason: str


@dataclass(frozen=True)
class _Running:
    task: Task
    slot: Slot
    process: subprocess.Popen
    since: float
    logged_before: int

    def step(self) -> int:
        """Return the last train step in the log."""
        steps = _STEP.findall(_tail(self.task.log, self.logged_before))
        return int(steps[-1]) if steps else 0


def train_command(words: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a process that runs ``animegen train``.

    ``-P`` keeps the current folder out of the search path of modules: a file ``random.py`` there is never imported.
    """
    return (sys.executable, "-P", "-m", "animegen", "train", *words)


def run_all(
    tasks: Sequence[Task], slots: Sequence[Slot], lock: int | None = None, stream: TextIO | None = None
) -> list[Failure]:
    """Run commands, one in each slot at a time, and return those that failed.

    Ctrl+C or SIGTERM asks the running commands once to end (SIGTERM), waits for them, and raises
    KeyboardInterrupt; a second one kills them.

    Args:
        tasks: the commands, in this order.
        slots: shares of the machine.
        lock: descriptor from :func:`animegen.locks.locked`, which the processes inherit.
        stream: receives the progress; stderr by default.
    """
    waiting, free, failed = list(tasks), list(slots), []
    running: list[_Running] = []
    with _signals(), _display(tasks, stream or sys.stderr) as display:
        try:
            while waiting or running:
                while waiting and free:
                    running.append(_start(waiting.pop(0), free.pop(0), lock))
                    display.started(running[-1])
                time.sleep(POLL_SECONDS)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    free.append(job.slot)
                    reason = _failure(job)
                    if reason is not None:
                        failed.append(Failure(job.task, reason))
                    display.ended(job, reason)
                display.update(running)
        except BaseException:
            _stop([job.process for job in running], display)
            raise
    return failed


def _start(task: Task, slot: Slot, lock: int | None) -> _Running:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    with task.log.open("ab") as log:
        before = log.tell()
        process = subprocess.Popen(
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=slot.environment(),
            cwd=task.folder,
            # Ctrl+C goes to all processes of the terminal, and a second signal would cost the checkpoint.
            start_new_session=True,
            pass_fds=() if lock is None else (lock,),
        )
    return _Running(task, slot, process, time.monotonic(), before)


def _stop(processes: Sequence[subprocess.Popen], display: _Display) -> None:
    alive = [process for process in processes if process.poll() is None]
    if not alive:
        return
    display.note("stopping: each run saves a checkpoint after its current step (Ctrl+C again: stop at once)")
    for process in alive:
        process.terminate()
    try:
        for process in alive:
            process.wait()
    except KeyboardInterrupt:
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in alive:
            process.wait()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and a closed terminal do what Ctrl+C does."""
    numbers = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
    main = threading.current_thread() is threading.main_thread()  # no other may change handlers
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failure(job: _Running) -> str | None:
    """Return why an ended command failed, or ``None`` if it did not."""
    code = job.process.returncode
    if code == 0:
        return None
    with job.task.log.open("rb") as log:
        log.seek(job.logged_before)
        lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}, last line: {last}"
    return last.removeprefix("animegen: ")


def _tail(path: Path, start: int) -> str:
    """Return the end of what a command has written."""
    try:
        with path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(start, end - 4096))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


# --- Progress --------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Return a time as ``42 s``, ``3:05 min`` or ``2:10 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


class _Display:
    """Progress: bars on a terminal, elsewhere a line for each start and end, and one per command and minute."""

    def __init__(self, bars: Progress, tasks: Sequence[Task]) -> None:
        self.bars = bars
        self.count, self.done = len(tasks), 0
        self.done_steps = 0
        self.whole = bars.add_task("all runs", total=sum(task.steps for task in tasks))
        self.rows: dict[str, TaskID] = {}
        self.updated, self.printed = 0.0, time.monotonic()

    def note(self, text: str) -> None:
        """Print a line."""
        self.bars.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def started(self, job: _Running) -> None:
        """Show that a command was started."""
        self.rows[job.task.name] = self.bars.add_task(job.task.name, total=job.task.steps)
        if self.bars.disable:
            threads = f", {job.slot.threads} threads" if job.slot.threads else ""
            gpus = "" if job.slot.gpus is None else f", CUDA device {job.slot.gpus}"
            self.note(f"{job.task.name}: started{threads}{gpus}")

    def ended(self, job: _Running, reason: str | None) -> None:
        """Show that a command has ended."""
        self.done += 1
        self.done_steps += job.task.steps
        self.bars.remove_task(self.rows.pop(job.task.name))
        spent = duration(time.monotonic() - job.since)
        result = f"finished in {spent}" if reason is None else f"failed after {spent}: {reason}"
        self.note(f"[{self.done}/{self.count}] {job.task.name}: {result}")

    def update(self, running: Sequence[_Running]) -> None:
        """Read the train steps from the logs, once per second."""
        now = time.monotonic()
        if now - self.updated < 1.0:
            return
        self.updated = now
        steps = {job.task.name: job.step() for job in running}
        for name, step in steps.items():
            self.bars.update(self.rows[name], completed=step)
        self.bars.update(self.whole, completed=self.done_steps + sum(steps.values()))
        if self.bars.disable and now - self.printed >= PLAIN_SECONDS:
            self.printed = now
            for job in running:
                step = steps[job.task.name]
                self.note(f"{job.task.name}: step {step} of {job.task.steps}, {self.left(self.rows[job.task.name])}")
            self.note(f"{self.done} of {self.count} done, {self.left(self.whole)}")

    def left(self, row: TaskID) -> str:
        """Return the time left of a command, or of all."""
        seconds = next(task.time_remaining for task in self.bars.tasks if task.id == row)
        return "time left unknown" if seconds is None else f"about {duration(seconds)} left"


@contextlib.contextmanager
def _display(tasks: Sequence[Task], stream: TextIO) -> Iterator[_Display]:
    console = Console(file=stream, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    settings: dict[str, Any] = {"transient": True, "console": console, "disable": not console.is_terminal}
    # Commands report some steps per minute.
    with Progress(*columns, speed_estimate_period=600.0, **settings) as bars:
        yield _Display(bars, tasks)
