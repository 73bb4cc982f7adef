"""Stages in threads: order, bounds, errors, and their end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from animegen.media.video.stages import Behind, ahead, decoding_threads, network_threads, waiting_frames


def threads_of_stages() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name in ("ahead", "behind")]


class Source:
    """An iterator that tells how far it has come, where, and whether it was closed."""

    def __init__(self, count: int, error: BaseException | None = None) -> None:
        self.count, self.error, self.taken = count, error, 0
        self.closed_by: str | None = None
        self.third = threading.Event()

    def items(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                self.taken += 1
                if self.taken == 3:
                    self.third.set()
                yield number
            if self.error is not None:
                raise self.error
        finally:
            self.closed_by = threading.current_thread().name


def test_items_are_taken_in_advance_in_their_order() -> None:
    source = Source(50)
    frames = ahead(source.items(), 2)
    assert next(frames) == 0
    assert source.third.wait(20)  # without a second call
    assert [*frames] == list(range(1, 50))
    assert source.closed_by == "ahead"
    assert threads_of_stages() == []


def test_no_more_items_wait_than_allowed() -> None:
    source = Source(50)
    for number in ahead(source.items(), 2):
        # Used, waiting, and in the hands of the thread.
        assert source.taken <= number + 1 + 2 + 1


def test_closing_ends_the_thread_and_closes_the_iterator_in_it() -> None:
    source = Source(50)
    frames = ahead(source.items(), 3)
    assert next(frames) == 0
    frames.close()
    assert source.closed_by == "ahead"
    assert source.taken < 10
    assert threads_of_stages() == []


def test_an_error_comes_after_the_items_before() -> None:
    frames = ahead(Source(3, ValueError("broken")).items(), 2)
    assert [next(frames) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(frames)
    assert threads_of_stages() == []


def test_calls_are_performed_in_order_beside_the_caller() -> None:
    done: list[int] = []
    go = threading.Event()
    with Behind(2) as behind:
        behind(lambda: go.wait(20) and done.append(0))
        behind(lambda: done.append(1))
        assert done == []  # the caller went on
        go.set()
        for number in range(2, 20):
            behind(lambda number=number: done.append(number))
    assert done == list(range(20))
    assert threads_of_stages() == []


def test_the_error_of_a_call_reaches_the_caller_and_ends_the_calls() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("full")

    def write() -> None:
        with Behind(1) as behind:
            behind(fail)
            for number in range(100):
                behind(lambda number=number: done.append(number))

    with pytest.raises(OSError, match="full"):
        write()
    assert done == []
    with pytest.raises(OSError, match="full"), Behind(1) as behind:
        behind(fail)  # the last call
    assert threads_of_stages() == []


def test_what_waits_is_done_after_an_error_of_the_caller() -> None:
    done: list[int] = []
    go = threading.Event()

    def interrupted() -> None:
        with Behind(4) as behind:
            behind(lambda: go.wait(20) and done.append(0))
            behind(lambda: done.append(1))
            go.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == [0, 1]


@pytest.mark.parametrize(
    ("cores", "decoding", "network"), [(1, 1, 1), (2, 2, 2), (4, 4, 4), (8, 4, 7), (16, 4, 15), (32, 4, 29)]
)
def test_threads_of_each_stage(cores: int, decoding: int, network: int) -> None:
    assert (decoding_threads(cores), network_threads(cores)) == (decoding, network)


@pytest.mark.parametrize(("height", "width", "frames"), [(720, 1280, 4), (2160, 3840, 2), (4320, 7680, 1)])
def test_few_large_frames_wait(height: int, width: int, frames: int) -> None:
    assert waiting_frames(height, width) == frames
