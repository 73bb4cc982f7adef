"""``animegen export``: a model as one file that runs without animegen."""

from __future__ import annotations

from animegen.cli.command import command
from animegen.cli.process import first_imports
from animegen.inference.options import ExportOptions


@command(ExportOptions)
def main(options: ExportOptions) -> None:
    """Write the file and print its deviation from the model."""
    with first_imports():
        from animegen.inference.export import export

    export(options)
