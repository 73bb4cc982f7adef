"""``animegen train``: one run, a sweep, a study, or a recorded run again."""

from __future__ import annotations

from collections.abc import Sequence

from animegen.cli.command import composed_command
from animegen.cli.process import first_imports
from animegen.config.options import Options
from animegen.config.schema import StudySchema, TrainSchema


def _schema(words: Sequence[str]) -> type[Options]:
    return StudySchema if any(word.startswith("study=") for word in words) else TrainSchema


@composed_command(TrainSchema, groups=True, explained=_schema)
def main(words: list[str]) -> int:
    """Run ``animegen train``."""
    with first_imports():
        from animegen.cli.training import train_command

    return train_command(words)
