"""``animegen train``: one run, a sweep, a study, or a recorded run again."""

from __future__ import annotations

from animegen.cli.command import composed_command
from animegen.config.schema import TrainSchema


def _is_study(words: list[str]) -> bool:
    return any(word.startswith("study=") for word in words)  # a study explains its keys itself


@composed_command(TrainSchema, groups=True, own_help=_is_study)
def main(words: list[str]) -> int:
    """Train; the words decide what exactly."""
    from animegen.cli.training import train_command  # imports PyTorch

    return train_command(words)
