"""What all commands have in common: reading words into options, ``--help``, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from animegen.cli.main import run
from animegen.config.options import Options, help_text, read

T = TypeVar("T", bound=Options)
Main = Callable[..., int]


def command(options: type[T]) -> Callable[[Callable[[T], int | None]], Main]:
    """Turn a function of options into the ``main(words) -> exit code`` of a command.

    Args:
        options: the dataclass that declares the keys of the command.
    """

    def decorate(body: Callable[[T], int | None]) -> Main:
        def main(arguments: Sequence[str] | None = None) -> int:
            """Run the command with the words of its command line; return the exit code."""
            words = list(sys.argv[1:] if arguments is None else arguments)

            def job() -> int | None:
                if wants_help(words):
                    print(help_text(options))
                    return 0
                return body(read(options, words))

            return run(job)

        return main

    return decorate


def wants_help(words: Sequence[str]) -> bool:
    """Tell whether words ask for the help text of a command."""
    return any(word in ("-h", "--help") for word in words)
