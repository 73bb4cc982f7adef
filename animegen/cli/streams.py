"""Standard streams without errors: output to a closed terminal is dropped, unsupported characters are escaped."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


def steady_streams() -> None:
    """Replace stdout and stderr so that printing raises no error; calling it again changes nothing.

    A result must not be lost because the reader of a pipe has ended (``| head -1``), the stream was closed (``>&-``),
    the disk of a log file is full, or the encoding lacks a character of a file name.
    """
    _reserve_descriptors()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        # A stream that was replaced, as by a test or a notebook, is left alone.
        if stream is None or (stream is getattr(sys, f"__{name}__") and not isinstance(stream, _SteadyText)):
            setattr(sys, name, _steady(stream, descriptor))


def _reserve_descriptors() -> None:
    """Open the null device for closed standard streams: a file that got their descriptor would be printed into."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def _steady(stream: Any, descriptor: int) -> io.TextIOWrapper:
    if stream is not None:
        stream.flush()
    buffer: Any = io.BufferedWriter(_Forgiving(descriptor, "w", closefd=False))
    is_terminal = os.isatty(descriptor)
    encoding = "utf-8" if stream is None else stream.encoding
    return _SteadyText(buffer, encoding, "backslashreplace", line_buffering=is_terminal or descriptor == 2)


class _SteadyText(io.TextIOWrapper):
    """Marks a stream that has been replaced."""


class _Forgiving(io.FileIO):
    """A stream that drops output after errors."""

    def write(self, data: Any) -> int:
        """Write bytes; report success even after an error."""
        try:
            written = super().write(data)
        except OSError:
            return len(data)
        return len(data) if written is None else written
