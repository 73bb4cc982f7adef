"""``animegen bench``: speed and memory."""

from __future__ import annotations

from animegen.cli.command import composed_command
from animegen.cli.main import quieten
from animegen.cli.process import first_imports
from animegen.config.schema import BenchSchema


@composed_command(BenchSchema)
def main(words: list[str]) -> None:
    """Print the measurements."""
    if words[:1] == ["startup"]:
        from animegen.speed.startup import show_startup

        show_startup(words[1:])
        return
    with first_imports():
        from animegen.speed.bench import run_bench

    quieten()
    run_bench(words)
