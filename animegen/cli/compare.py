"""``animegen compare``: one table, plots, images and differences of runs."""

from __future__ import annotations

from animegen.cli.command import command
from animegen.reports.options import CompareOptions


@command(CompareOptions)
def main(options: CompareOptions) -> None:
    """Print the tables and write the report."""
    from animegen.launch.comparison import find_comparison  # imports PyTorch and matplotlib
    from animegen.reports.comparison import show_comparison

    show_comparison(find_comparison(options), options.overwrite)
