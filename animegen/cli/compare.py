"""``animegen compare``: one table, plots, images and differences of runs."""

from __future__ import annotations

from animegen.cli.command import command
from animegen.cli.process import first_imports
from animegen.reports.options import CompareOptions


@command(CompareOptions)
def main(options: CompareOptions) -> None:
    """Print the tables and write the report."""
    with first_imports():
        from animegen.launch.comparison import find_comparison
        from animegen.reports.comparison import show_comparison

    show_comparison(find_comparison(options), options.overwrite)
