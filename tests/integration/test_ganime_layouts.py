"""The study of the layouts: every row learns over one tokenizer, whose codes are made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from animegen.engine.checkpoint import read_checkpoint
from animegen.launch.study import compose_study, expand
from tests.support import train

#: What the rows must not take from the study here: a folder elsewhere, or the time.
_OTHERS = ("train_steps=", "val_every=", "model.tokenizer_checkpoint=", "model.codes_folder=", "data.cache=")


def test_every_layout_learns_over_one_tokenizer_and_its_codes(tmp_path: Path) -> None:
    rows = expand(compose_study("ganime_layouts"))
    assert set(rows) == {"prefix_ar", "clip_mask", "frame_block_mask", "frame_parallel", "torch_ganime"}
    small = ("data.frames=6", "model.tokenizer.quantizer.codes=32")
    tokenizer = train("experiment=ganime/tokenizer", "train_steps=1", *small, output=tmp_path / "tokenizer")
    fixed = read_checkpoint(tokenizer)["state_dict"]
    shared = (f"model.tokenizer_checkpoint={tokenizer}", f"model.codes_folder={tmp_path / 'codes'}")
    made = {}
    for name, words in rows.items():
        kept = [word for word in words if not word.startswith(_OTHERS)]
        run = train(*kept, *shared, *small, "train_steps=1", output=tmp_path / name)
        content = read_checkpoint(run)
        made[name] = content["animegen"]["config"]["model"]["transformer"]["decoding"]
        moved = [k for k, v in content["state_dict"].items() if k in fixed and k.startswith("tokenizer.decoder")]
        assert moved
        assert not (run / "codes").exists()
    assert made == {name: name for name in rows}
    tables = list((tmp_path / "codes").glob("*/codes.npy"))
    assert len(tables) == 1
    assert np.load(tables[0]).shape == (2, 2 * 6, 4, 4)
