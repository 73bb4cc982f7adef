"""``animegen generate``: a clip between key frames."""

from __future__ import annotations

import sys

from animegen.cli.command import command
from animegen.cli.process import first_imports
from animegen.inference.options import GenerateOptions


@command(GenerateOptions)
def main(options: GenerateOptions) -> None:
    """Print the results."""
    with first_imports():
        from animegen.inference.generate import generate

    done = generate(options)
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    print(done)
