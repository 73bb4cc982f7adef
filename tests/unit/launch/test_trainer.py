"""Errors of the trainer as sentences."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from animegen.config.compose import compose_config
from animegen.engine import AnimeModule, callbacks
from animegen.errors import AnimegenError
from animegen.launch import trainer as launch
from animegen.launch.trainer import build_trainer, fit
from animegen.nn import precision


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


@pytest.mark.parametrize(
    ("word", "able", "expected", "warned"),
    [
        ("auto", True, "bf16-mixed", False),
        ("auto", False, "32-true", False),
        ("bf16", True, "bf16-mixed", False),
        ("bf16", False, "bf16-mixed", True),
        ("fp32", True, "32-true", False),
    ],
)
def test_auto_is_bf16_where_the_processor_has_it(
    word: str,
    able: bool,
    expected: str,
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (precision, launch):
        monkeypatch.setattr(module, "computes_bf16", lambda device: able)
    config = compose_config("train", [f"precision={word}", "callbacks=none", "logger=none"])
    trainer = build_trainer(config, tmp_path, callbacks.RunRecord(tmp_path, {}), 0)
    assert trainer.precision == expected
    assert ("emulates it" in caplog.text) is warned
