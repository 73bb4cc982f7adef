"""``animegen prepare``: data sets from videos, generated videos, key-frame projects."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from animegen.cli.command import command
from animegen.cli.main import quieten, run
from animegen.curation.options import PrepareOptions

MULTIRUN = ("-m", "--multirun")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the words of its command line; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not set(MULTIRUN) & set(words):
        return _prepare(words)

    def sweep() -> int:
        from animegen.curation.shards import curate_shards  # imports PyTorch and Hydra

        quieten()
        return curate_shards([word for word in words if word not in MULTIRUN])

    return run(sweep)


@command(PrepareOptions)
def _prepare(options: PrepareOptions) -> int:
    from rich.console import Console

    from animegen.curation.prepare import prepare  # imports PyTorch

    quieten()
    return prepare(options, Console(highlight=False, soft_wrap=True))
