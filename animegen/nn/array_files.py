"""Arrays in files of NumPy, mapped into memory and checked before use."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animegen.errors import AnimegenError
from animegen.files import regular_file


def load_array(path: Path, what: str, remedy: str) -> np.ndarray:
    """Return the array in a ``.npy`` file, mapped for reading; objects (pickles) are refused.

    Args:
        path: the file.
        what: what it is for messages, e.g. ``a table of codes``.
        remedy: what to do about a file that cannot be read, without a period.

    Raises:
        AnimegenError: if it is missing, damaged, cut off, or holds no array of numbers.
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
