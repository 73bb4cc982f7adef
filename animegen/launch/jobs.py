"""Many commands on one machine: each a process of its own, so many at a time, with the machine shared out."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

POLL_SECONDS = 0.1
PLAIN_SECONDS = 60.0
_STEP = re.compile(r"^step (\d+)(?:/\d+)?  ", re.MULTILINE)


@dataclass(frozen=True)
class Task:
    """A command to run.

    Attributes:
        name: for the reader.
        command: program and arguments.
        log: file that its output is appended to.
        steps: the train step at which it ends; its lines "step <n>" tell how far it is.
        folder: where it runs; ``None`` is the current folder.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    steps: int = 0
    folder: Path | None = None


@dataclass(frozen=True)
class Slot:
    """A share of the machine.

    Attributes:
        threads: for computing; 0 leaves the environment as it is.
        gpus: CUDA devices that a command sees; ``None`` leaves the environment as it is.
        changes: further variables of its environment.
    """

    threads: int
    gpus: str | None = None
    changes: Mapping[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """Return the environment of a command that runs in this share."""
        changed = {**self.changes, **({"OMP_NUM_THREADS": str(self.threads)} if self.threads else {})}
        if self.gpus is not None:
            changed["CUDA_VISIBLE_DEVICES"] = self.gpus
        return {**os.environ, **changed}


@dataclass(frozen=True)
class Failure:
    """A command that did not end well, and why: the last line of its output."""

    task: Task
    reason: str


@dataclass
class _Running:
    task: Task
    slot: Slot
    process: subprocess.Popen
    since: float
    logged_before: int
    first: tuple[int, float] | None = None  # the first step that was seen, and when
    step: int = 0

    def look(self, now: float) -> None:
        """Read from the log how far the command is."""
        steps = _STEP.findall(_tail(self.task.log, self.logged_before))
        if steps:
            self.step = int(steps[-1])
            self.first = self.first or (self.step, now)

    def left(self, now: float) -> float | None:
        """Return the seconds left, judged by the steps so far, or ``None`` as long as nothing is known."""
        if self.first is None or self.step <= self.first[0]:
            return None
        return (now - self.first[1]) * (self.task.steps - self.step) / (self.step - self.first[0])


def train_command(words: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a process that runs ``animegen train``.

    ``-P`` keeps the current folder out of the search path of modules: a file ``random.py`` there is never imported.
    """
    return (sys.executable, "-P", "-m", "animegen", "train", *words)


def share_machine(count: int, cores: int | None = None, gpus: Sequence[str] | None = None) -> list[Slot]:
    """Return ``count`` equal shares of this machine.

    With more GPUs than shares each gets several; with fewer, shares have to share one.

    Args:
        count: number of shares.
        cores: number of cores; ``None`` counts those that this process may use.
        gpus: names of the CUDA devices; ``None`` looks.
    """
    cores = cores or count_cores()
    gpus = list_gpus() if gpus is None else gpus
    slots = []
    for number in range(count):
        mine = gpus[number::count] or ([gpus[number % len(gpus)]] if gpus else [])
        slots.append(Slot(max(1, cores // count), ",".join(mine) if mine else None))
    return slots


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def list_gpus() -> list[str]:
    """Return the names of the CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    import torch  # takes seconds, and only the real machine is asked

    count = torch.cuda.device_count()
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[:count] if visible else [str(number) for number in range(count)]


def run_all(
    tasks: Sequence[Task], slots: Sequence[Slot], lock: int | None = None, stream: TextIO | None = None
) -> list[Failure]:
    """Run commands, one in each slot at a time, and return those that failed.

    Ctrl+C or SIGTERM asks the running commands once to end (SIGTERM), waits for them, and raises
    KeyboardInterrupt; a second one kills them.

    Args:
        tasks: what to run, in this order.
        slots: shares of the machine.
        lock: of :func:`locked`.
        stream: where progress goes; stderr by default.
    """
    waiting, free, failed = list(tasks), list(slots), []
    running: list[_Running] = []
    with _signals(), _display(len(tasks), len(slots), stream or sys.stderr) as display:
        try:
            while waiting or running:
                while waiting and free:
                    running.append(_start(waiting.pop(0), free.pop(0), lock))
                    display.began(running[-1])
                time.sleep(POLL_SECONDS)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    free.append(job.slot)
                    reason = _failure(job)
                    if reason is not None:
                        failed.append(Failure(job.task, reason))
                    display.ended(job, reason)
                display.shows(running, len(waiting))
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
    display.note("stopping: each run ends after its present step and saves a checkpoint (Ctrl+C again: at once)")
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

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before: dict[int, Any] = {}
    try:
        for name in names:
            before[getattr(signal, name)] = signal.signal(getattr(signal, name), interrupt)
    except ValueError:  # not the main thread: whoever started it takes care
        pass
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
    last = lines[-1] if lines else "it said nothing"
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


def duration(seconds: float) -> str:
    """Return a time as ``42 s``, ``3:05 min`` or ``2:10 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


@dataclass
class _Display:
    """Progress: bars on a terminal; else a line for each beginning, end, and minute of each command."""

    total: int
    slots: int
    console: Console
    bars: Progress | None = None
    done: int = 0
    spent: list[float] = field(default_factory=list)
    told: float = field(default_factory=time.monotonic)
    looked: float = 0.0
    ids: dict[str, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def began(self, job: _Running) -> None:
        """Tell that a command was started."""
        if self.bars is not None:
            self.ids[job.task.name] = self.bars.add_task(job.task.name, total=job.task.steps, left="starting")
        else:
            threads = f", {job.slot.threads} threads" if job.slot.threads else ""
            self.note(f"{job.task.name}: started{threads}{_on(job.slot)}")

    def ended(self, job: _Running, reason: str | None) -> None:
        """Tell that a command has ended."""
        self.done += 1
        seconds = time.monotonic() - job.since
        if self.bars is not None:
            self.bars.remove_task(self.ids.pop(job.task.name))
        if reason is None:
            self.spent.append(seconds)
        how = f"finished in {duration(seconds)}" if reason is None else f"failed after {duration(seconds)}: {reason}"
        self.note(f"[{self.done}/{self.total}] {job.task.name}: {how}")

    def shows(self, running: Sequence[_Running], waiting: int) -> None:
        """Bring the progress up to date."""
        now = time.monotonic()
        if now - self.looked < 1.0:
            return
        self.looked = now
        for job in running:
            job.look(now)
        if self.bars is None:
            if now - self.told < PLAIN_SECONDS:
                return
            self.told = now
        for job in running:
            left = job.left(now)
            about = f"{duration(left)} left" if left is not None else "time left unknown"
            if self.bars is not None:
                self.bars.update(self.ids[job.task.name], completed=job.step, left=about)
            else:
                self.note(f"{job.task.name}: step {job.step} of {job.task.steps}, {about}")
        whole = self.left(running, waiting, now)
        if whole is not None:
            if self.bars is not None:
                self.bars.update(self.ids["all"], completed=self.done, left=f"about {duration(whole)} left")
            else:
                self.note(f"{self.done} of {self.total} done, about {duration(whole)} left")

    def left(self, running: Sequence[_Running], waiting: int, now: float) -> float | None:
        """Return the seconds until all is done, or ``None`` as long as nothing is known."""
        lefts = [job.left(now) for job in running]
        known = [left for left in lefts if left is not None]
        wholes = self.spent or [now - job.since + left for job, left in zip(running, lefts, strict=True) if left]
        if not wholes:
            return None
        whole = sum(wholes) / len(wholes)
        unknown = len(lefts) - len(known) + waiting
        return max([(sum(known) + unknown * whole) / self.slots, *known])


def _on(slot: Slot) -> str:
    return "" if slot.gpus is None else f", CUDA device {slot.gpus}"


@contextlib.contextmanager
def _display(total: int, slots: int, stream: TextIO) -> Iterator[_Display]:
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        yield _Display(total, slots, console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TextColumn("{task.fields[left]}"), transient=True, console=console) as bars:
        display = _Display(total, slots, console, bars)
        display.ids["all"] = bars.add_task("all runs", total=total, left="")
        yield display
