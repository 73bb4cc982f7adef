"""User errors: one sentence that states the problem, its place and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnimegenError(Exception):
    """A mistake in the input, the configuration or the environment, phrased for the user.

    The command line prints its text without a traceback and exits with code 2 (``--debug`` or ``ANIMEGEN_DEBUG=1``
    shows the traceback). The text names the cause and ends with the remedy.
    """


class FormatError(AnimegenError):
    """A format or codec cannot hold what is written; other files of the same command may succeed."""


def did_you_mean(word: str, candidates: Iterable[str], count: int = 3, cutoff: float = 0.6) -> str:
    """Return ``" Did you mean 'a' or 'b'?"`` for the closest candidates, or an empty string.

    Args:
        word: the unknown word.
        candidates: valid words.
        count: largest number of suggestions.
        cutoff: minimum similarity, from 0 (anything) to 1 (equal).
    """
    near = difflib.get_close_matches(word, list(dict.fromkeys(candidates)), n=count, cutoff=cutoff)
    if not near:
        return ""
    return " Did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
