"""Progress on a terminal, or as a few plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

#: Plain lines per video or list of files, and seconds between those of a video: at least, and at most.
LINES = 20
PAUSE, PATIENCE = 2.0, 60.0


class Display:
    """A progress bar on a terminal, else about twenty plain lines for the files, and for each video.

    Args:
        total: number of files.
        verb: the operation.
    """

    def __init__(self, total: int, verb: str = "stylize") -> None:
        self.total, self.count = total, 0
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (
                *(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()),
                *(TextColumn("{task.fields[rate]}"), TimeRemainingColumn(elapsed_when_finished=True)),
            )
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.files = self.bar.add_task(verb, total=total, rate="")

    def __enter__(self) -> Display:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(f"note: {text}", markup=False)

    def progress(self) -> None:
        """Show that one more file is dealt with."""
        self.count += 1
        if self.bar is not None:
            self.bar.update(self.files, completed=self.count)
        elif self.total > 1 and (self.count % math.ceil(self.total / LINES) == 0 or self.count == self.total):
            self.console.print(f"{self.count}/{self.total}")

    def searched(self, frames: Iterable[T]) -> Iterator[T]:
        """Yield the frames of a video in which cuts are searched for, which takes little time."""
        yield from frames

    def video(self, name: str, done: int, total: int | None) -> VideoDisplay:
        """Show the progress of a video of which ``done`` frames are finished already."""
        return VideoDisplay(self, name, done, total)


class VideoDisplay:
    """Progress within a video: frames, frames per second, time left."""

    def __init__(self, display: Display, name: str, done: int, total: int | None) -> None:
        self.display, self.name, self.total = display, name, total
        self.first = self.count = done
        self.began = self.shown = time.perf_counter()
        if display.bar is not None:
            self.task = display.bar.add_task(name, total=total, completed=done, rate="")

    def frame(self) -> None:
        """Show that one more frame is done."""
        self.count += 1
        now = time.perf_counter()
        rate = (self.count - self.first) / max(now - self.began, 1e-9)
        if self.display.bar is not None:
            self.display.bar.update(self.task, completed=self.count, rate=f"{rate:.1f} frames/s")
            return
        step = math.ceil((self.total or 1000) / LINES)
        due = self.count % step == 0 and now - self.shown > PAUSE
        if due or now - self.shown > PATIENCE or self.count == self.total:
            self.shown = now
            of = f"/{self.total}" if self.total else ""
            left = f", {clock((self.total - self.count) / rate)} left" if self.total and self.total > self.count else ""
            self.display.console.print(f"{self.name}: {self.count}{of} frames, {rate:.1f} frames/s{left}", markup=False)

    def end(self) -> None:
        """Remove the line of the video."""
        if self.display.bar is not None:
            self.display.bar.remove_task(self.task)


def clock(seconds: float) -> str:
    """Return a time like ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
