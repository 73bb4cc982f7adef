"""The speed of the transformer is measured by ``animegen bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from animegen import bench as verb
from tests.support import run_verb


def test_codes_per_second_are_measured(tmp_path: Path) -> None:
    words = ("model=ganime/small", "size=tiny", "device=cpu", "seconds=0.01", "features=none")
    small = ("model.transformer.layers=1", "model.transformer.heads=2", "model.transformer.dim=16")
    assert run_verb(verb.main, *words, *small, f"output={tmp_path / 'bench.json'}") == 0
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    # Pictures of 32 pixels are 4x4 codes; 14 of 16 frames are drawn.
    one = rows["s per clip of 16 frames of 4x4, prefix_ar"]
    assert rows["codes drawn/s, prefix_ar, one clip"] * one == pytest.approx(14 * 16)
    guessed = rows["s per clip, clip_mask in 8 passes"]
    assert rows["clip_mask over prefix_ar, times as fast"] == pytest.approx(one / guessed)
    assert rows["clip_mask over prefix_ar, times as fast"] > 1
    assert min(rows.values()) > 0
