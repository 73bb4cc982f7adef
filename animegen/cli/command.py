"""What all commands have in common: reading words into options, ``--help``, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from animegen.cli.main import run
from animegen.config.options import Options, help_text, read

Main = Callable[[Sequence[str] | None], int]


def command(
    options: type[Options], more: Callable[[], str] | None = None, passed: Sequence[str] = ()
) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Turn a function of options into the ``main(words) -> exit code`` of a command.

    Args:
        options: the dataclass that declares the keys of the command.
        more: returns text for the end of ``--help``.
        passed: keys that configure a part which Hydra composes: words such as ``model=...`` and ``+model.key=...`` are
            not read, and given to the function as a second argument.
    """

    def decorate(body: Callable[..., int | None]) -> Callable[..., int]:
        def main(arguments: Sequence[str] | None = None) -> int:
            """Run the command with the words of its command line; return the exit code."""
            words = list(sys.argv[1:] if arguments is None else arguments)

            def job() -> int | None:
                if wants_help(words):
                    print(help_text(options, more() if more else ""))
                    return 0
                others = [word for word in words if _root(word) in passed]
                chosen = read(options, [word for word in words if word not in others])
                given: list[Any] = [chosen, others] if passed else [chosen]
                return body(*given)

            return run(job)

        return main

    return decorate


def wants_help(words: Sequence[str]) -> bool:
    """Tell whether words ask for the help text of a command."""
    return any(word in ("-h", "--help") for word in words)


def _root(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").partition(".")[0]
