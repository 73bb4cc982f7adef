"""Memory-mapped NumPy arrays, checked before use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animegen.errors import AnimegenError
from animegen.files import regular_file


def load_array(path: Path, what: str, remedy: str) -> np.ndarray:
    """Return the array of a ``.npy`` file, memory-mapped and read-only. Pickled objects are rejected.

    Args:
        path: the file.
        what: description of the file for error messages, e.g. ``a table of codes``.
        remedy: advice for error messages, without a period.

    Raises:
        AnimegenError: if the file is missing, damaged, truncated, or holds no numeric array.
    """
    regular_file(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file raises many kinds of exceptions
        text = " ".join(str(error).split())[:160]
        raise AnimegenError(f"'{path}' cannot be read as {what} ({text}): {remedy}.") from error
    if not isinstance(array, np.ndarray):  # an archive of several
        raise AnimegenError(f"'{path}' cannot be read as {what} (it is an archive): {remedy}.")
    return array
