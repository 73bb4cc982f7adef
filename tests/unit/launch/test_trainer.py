"""Errors of the trainer as sentences."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from animegen.engine import AnimeModule
from animegen.errors import AnimegenError
from animegen.launch.trainer import fit


class Broken(SimpleNamespace):
    """A trainer whose first step fails."""

    def fit(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("expected 19 channels, got 28\nat layer 3")


def test_the_first_step_fails_with_settings_of_the_command_line() -> None:
    words = ["experiment=toy/quickstart", "model.generator.guide=0", "+model.x={_target_: mine.Loss}", "train_steps=3"]
    message = (
        r"^The first train step fails with model\.generator\.guide=0 \(RuntimeError, expected 19 channels, got 28\): "
    )
    with pytest.raises(AnimegenError, match=message):
        fit(Broken(callbacks=[]), AnimeModule(), None, None, words)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [["experiment=toy/quickstart"], ["model.generator._target_=mine.Net"]])
def test_a_defect_keeps_its_traceback(words: list[str]) -> None:
    with pytest.raises(RuntimeError, match="19 channels"):
        fit(Broken(callbacks=[]), AnimeModule(), None, None, words)  # type: ignore[arg-type]
