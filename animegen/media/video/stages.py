"""Decoding and encoding of a video in threads of their own, beside the work between them.

FFmpeg, NumPy and PyTorch release Python's lock while they compute, so that the stages take place at the same time.
Frames wait in short queues, and keep their order.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from av.video.codeccontext import VideoCodecContext

Item = TypeVar("Item")

#: Frames, and bytes of pixels, that wait in a queue at most.
MOST_FRAMES, MOST_BYTES = 4, 2**26
#: Threads of a decoder at most: a frame takes a fraction of the time of encoding it, and each thread holds one.
MOST_DECODING = 4
#: Share of decoding and encoding in the CPU time of a film that is stylized (73 of 886 ms per frame of 720p).
CODEC_SHARE = 1 / 12


def waiting_frames(height: int, width: int) -> int:
    """Return how many frames of a size may wait in a queue: few large ones, and at least one."""
    return max(1, min(MOST_FRAMES, MOST_BYTES // (3 * height * width)))


def decoding_threads(cores: int) -> int:
    """Return the number of threads of a decoder on a machine with that many cores."""
    return max(1, min(cores, MOST_DECODING))


def network_threads(cores: int) -> int:
    """Return the number of threads of a network that runs on the CPU between decoding and encoding.

    All cores if they are few: what the codec takes is then spread over them. Of many some stay free, since the threads
    of a network wait for the slowest of them, which would be the one that shares its core with the codec.
    """
    return cores - round(CODEC_SHARE * cores)


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_in_threads(decoder: VideoCodecContext) -> None:
    """Let a decoder that is not open yet use :func:`decoding_threads`."""
    decoder.thread_type = "AUTO"
    decoder.thread_count = decoding_threads(count_cores())


def ahead(items: Iterable[Item], most: int) -> Generator[Item, None, None]:
    """Yield items that a thread takes from an iterator in advance.

    The thread also closes the iterator, if it is a generator: at its end, or as soon as this one is closed.

    Args:
        items: the iterator.
        most: items that wait at most; one more is held by the thread.

    Raises:
        BaseException: what the iterator raises, after the items before.
    """
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(most)
    stopped = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ready.put((True, item))
                if stopped.is_set():
                    break
        except BaseException as caught:
            error = caught
        finally:
            if hasattr(items, "close"):
                items.close()
        ready.put((False, error))

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            is_item, value = ready.get()
            if is_item:
                yield value
            elif value is None:
                return
            else:
                raise value
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            with suppress(queue.Empty):
                ready.get(timeout=0.02)
        thread.join()


class Behind:
    """Calls that a thread performs one after the other, while the caller goes on.

    A context manager. Its normal end waits for all calls. After an error of the caller, waiting calls are performed,
    too. After an error of a call, those that follow are left out.

    Args:
        most: calls that wait at most; a further one waits for room.
    """

    def __init__(self, most: int) -> None:
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue(most)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="behind", daemon=True)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if self._error is None:
                try:
                    call()
                except BaseException as error:
                    self._error = error

    def __call__(self, call: Callable[[], object]) -> None:
        """Perform a call later.

        Raises:
            BaseException: the error of an earlier call.
        """
        self._raise()
        self._calls.put(call)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._calls.put(None)
        self._thread.join()
        if kind is None:
            self._raise()
