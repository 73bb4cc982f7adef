"""Tests of the generated world draw it each time."""

from __future__ import annotations

import pytest

from animegen.toonworld import source


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_scene_looks", source._scene_looks.__wrapped__)  # type: ignore[attr-defined]
