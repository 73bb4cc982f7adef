"""``animegen eval``: score a checkpoint and the baselines."""

from __future__ import annotations

from animegen.cli.command import composed_command
from animegen.cli.process import first_imports
from animegen.config.schema import EvalSchema


@composed_command(EvalSchema)
def main(words: list[str]) -> None:
    """Print the scores and write them, if output= is given."""
    with first_imports():
        from animegen.launch.evaluate import evaluate

    evaluate(words)
