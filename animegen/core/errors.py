"""Errors that a user can cause: one sentence that says what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AnimegenError(Exception):
    """A mistake in the input, the configuration or the environment, phrased for the user.

    The command line prints its text without a traceback and exits with code 2
    (``--debug`` or ``ANIMEGEN_DEBUG=1`` shows the traceback). The text names the
    offending thing and ends with the remedy.
    """


def did_you_mean(word: str, candidates: Iterable[str], count: int = 3) -> str:
    """Return ``" Did you mean 'a' or 'b'?"`` for the nearest candidates, or an empty string."""
    near = difflib.get_close_matches(word, list(candidates), n=count, cutoff=0.6)
    if not near:
        return ""
    return " Did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
