"""``animegen stylize``: images and videos to anime."""

from __future__ import annotations

from animegen.cli.command import command
from animegen.cli.process import first_imports
from animegen.inference.options import StylizeOptions


@command(StylizeOptions)
def main(options: StylizeOptions) -> int:
    """Print a summary; exit code 1 if something was skipped or is incomplete."""
    with first_imports():
        from animegen.inference.stylize import stylize

    summary = stylize(options)
    print(summary)
    return 1 if summary.skipped or summary.incomplete else 0
