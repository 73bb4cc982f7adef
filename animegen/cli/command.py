"""The common part of all commands: parsing of options, ``--help``, and the exit code."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from animegen.cli.main import run
from animegen.config.messages import refuse_empty
from animegen.config.options import Options, help_text, read

#: Largest number of options that ``--help`` lists per group.
MANY = 60

Main = Callable[[Sequence[str] | None], int]


def command(
    options: type[Options], more: Callable[[], str] | None = None, passed: Sequence[str] = ()
) -> Callable[[Callable[..., int | None]], Callable[..., int]]:
    """Turn a function of an options object into ``main(arguments) -> exit code``.

    Args:
        options: the dataclass that declares the keys of the command.
        more: returns text that is appended to ``--help``.
        passed: keys of parts that Hydra composes: arguments such as ``model=...`` and ``+model.key=...`` are not
            parsed, but passed to the function as a second argument.
    """

    def decorate(body: Callable[..., int | None]) -> Callable[..., int]:
        def main(arguments: Sequence[str] | None = None) -> int:
            """Run the command with the given arguments, by default those of the process; return the exit code."""
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


def composed_command(
    schema: type[Options], groups: bool = False, explained: Callable[[Sequence[str]], type[Options]] | None = None
) -> Callable[[Callable[[list[str]], int | None]], Callable[..., int]]:
    """Turn a function of overrides for Hydra into ``main(arguments) -> exit code``.

    Args:
        schema: the dataclass of the top-level keys.
        groups: list the configuration groups in ``--help``.
        explained: returns the dataclass that ``--help`` explains, given the other arguments; by default ``schema``.
    """

    def decorate(body: Callable[[list[str]], int | None]) -> Callable[..., int]:
        def main(arguments: Sequence[str] | None = None) -> int:
            """Run the command with the given arguments, by default those of the process; return the exit code."""
            words = list(sys.argv[1:] if arguments is None else arguments)

            def job() -> int | None:
                if wants_help(words):
                    print(help_text(explained(words) if explained else schema, _groups() if groups else ""))
                    return 0
                refuse_empty(words)
                return body(words)

            return run(job)

        return main

    return decorate


def _groups() -> str:
    """Return the configuration groups with their options, 80 columns wide."""
    from animegen.config.groups import list_options

    found: dict[str, list[str]] = {}
    for option in list_options():
        group, _, name = option.partition("/")
        found.setdefault(group, []).append(name)
    lines = ["Groups (animegen list explains the options):"]
    for group, names in found.items():
        shown = ", ".join(names) if len(names) <= MANY else f"{len(names)} options: animegen list {group}s"
        text = f"  {group:<11} {shown}"
        lines += textwrap.wrap(text, 80, subsequent_indent=" " * 14, break_on_hyphens=False)
    return "\n".join(lines)


def wants_help(words: Sequence[str]) -> bool:
    """Return whether the arguments ask for the help text of a command."""
    return any(word in ("-h", "--help") for word in words)


def _root(word: str) -> str:
    return word.partition("=")[0].lstrip("+~").partition(".")[0]
