"""The speed of the transformer is measured by ``animegen bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from animegen.cli import bench as verb
from animegen.config.compose import compose_config
from animegen.config.instantiate import build
from animegen.models.ganime.networks.decoding import ClipMask, FrameBlockMask
from tests.support import run_verb


def network_steps() -> dict[str, int]:
    return {name: layout().steps for name, layout in (("clip_mask", ClipMask), ("frame_block_mask", FrameBlockMask))}


def test_codes_per_second_are_measured(tmp_path: Path) -> None:
    words = ("model=ganime/small", "size=tiny", "device=cpu", "seconds=0.01", "features=none")
    small = ("model.transformer.layers=1", "model.transformer.heads=2", "model.transformer.dim=16")
    assert run_verb(verb.main, *words, *small, f"output={tmp_path / 'bench.json'}") == 0
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    # Images of 32 pixels are 4x4 codes; 14 of 16 frames are drawn.
    one = rows["s per clip of 16 frames of 4x4, prefix_ar"]
    assert rows["codes drawn/s, prefix_ar, one clip"] * one == pytest.approx(14 * 16)
    for layout in ("clip_mask", "frame_block_mask", "frame_parallel", "torch_ganime"):
        assert rows[f"{layout} over prefix_ar, times as fast"] == pytest.approx(one / rows[f"s per clip, {layout}"])
    assert rows["clip_mask over prefix_ar, times as fast"] > 1
    passes = {name.split()[-1]: value for name, value in rows.items() if name.startswith("passes")}
    masked = network_steps()
    assert passes == {
        "prefix_ar": 14 * 16,
        "clip_mask": masked["clip_mask"],
        "frame_block_mask": 14 * masked["frame_block_mask"],
        "frame_parallel": 14,
        "torch_ganime": 14,
    }
    assert min(rows.values()) > 0


def test_a_tokenizer_is_measured_in_steps(tmp_path: Path) -> None:
    words = ("model=ganime/tokenizer", "size=tiny", "device=cpu", "seconds=0.01", "features=none")
    assert run_verb(verb.main, *words, f"output={tmp_path / 'bench.json'}") == 0
    result = json.loads((tmp_path / "bench.json").read_text())
    rows = result["rows"]
    assert rows["samples/s"] * rows["ms per step"] == pytest.approx(1000 * result["batch"][0])
    assert result["batch"][1:] == [3, 32, 32]
    assert not [name for name in rows if "pair" in name or "codes" in name]


def test_the_tokenizer_of_torchganime_has_its_size() -> None:
    model = build(
        compose_config("bench", ["model=ganime/tokenizer_kny64", "size=base", "features=none"]).model, "model"
    )
    count = sum(p.numel() for part in (model.tokenizer.encoder, model.tokenizer.decoder) for p in part.parameters())
    assert count == pytest.approx(18.7e6, rel=0.01)  # without the 1x1 convolutions; reads 7.3 + 11.4 million
    assert sum(p.numel() for p in model.discriminator.parameters()) == pytest.approx(2.77e6, rel=0.01)
    assert model.example_batch(8, 256, 256, torch.device("cpu"))["frame"].shape == (8, 3, 64, 128)
    assert model.objectives["tokenizer"].active() == ["l1", "commitment", "adversarial", "lpips"]
