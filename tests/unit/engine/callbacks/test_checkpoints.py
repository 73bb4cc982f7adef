"""Checkpoints: which files there are, what they hold, and what happens when writing fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from animegen.engine import AnimegenError
from animegen.engine.callbacks import Checkpoints, CsvLogger
from animegen.engine.lightning import LightningAdapter
from tests.unit.engine.callbacks.small import Small, fit


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def step_of(path: Path) -> int:
    return torch.load(path, weights_only=True)["animegen"]["train_step"]


def test_last_at_every_due_step_and_at_the_end(tmp_path: Path) -> None:
    seen = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, *_: object) -> None:
            last = tmp_path / "checkpoints" / "last.ckpt"
            seen.append(step_of(last) if last.exists() else 0)

    fit(Small(), tmp_path, Look(), Checkpoints(every=2), steps=5)
    assert seen == [0, 0, 2, 2, 4]
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 5
    assert names(tmp_path) == ["last.ckpt"]


def test_metrics_up_to_a_checkpoint_are_in_the_file(tmp_path: Path) -> None:
    logger, rows = CsvLogger(str(tmp_path), every=100), []

    class Look(pl.Callback):
        def on_train_batch_start(self, *_: object) -> None:
            rows.append(len(logger.path.read_text().splitlines()) - 1 if logger.path.exists() else 0)

    fit(Small(), tmp_path, Look(), Checkpoints(every=2), steps=5, logger=logger)
    assert rows == [0, 0, 2, 2, 4]


@pytest.mark.parametrize(("keep", "kept"), [(2, [4, 6]), (-1, [2, 4, 6]), (0, [])])
def test_keep(keep: int, kept: list[int], tmp_path: Path) -> None:
    fit(Small(), tmp_path, Checkpoints(every=2, keep=keep), steps=6)
    assert names(tmp_path) == ["last.ckpt", *(f"step-{step:07d}.ckpt" for step in kept)]
    for step in kept:
        assert step_of(tmp_path / "checkpoints" / f"step-{step:07d}.ckpt") == step


def test_keep_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    fit(Small(), tmp_path, Checkpoints(every=2, keep=-1), steps=4)
    assert [step_of(tmp_path / "checkpoints" / f"step-000000{n}.ckpt") for n in (2, 4)] == [2, 4]


@pytest.mark.parametrize(("mode", "best"), [("max", 4), ("min", 6)])
def test_best_ignores_what_is_no_number(mode: str, best: int, tmp_path: Path) -> None:
    scores = [float("nan"), 5.0, 1.0, 3.0]  # at steps 2, 4, 6, 8
    fit(Small(scores=scores), tmp_path, Checkpoints(100, monitor="val/score", mode=mode), steps=8, val_every=2)
    assert step_of(tmp_path / "checkpoints" / "best.ckpt") == best


def test_a_checkpoint_holds_the_metrics_of_its_step(tmp_path: Path) -> None:
    fit(Small(scores=[1.0, 2.0, 3.0]), tmp_path, Checkpoints(every=2, keep=-1), steps=6, val_every=2)
    for step, score in ((2, 1.0), (4, 2.0), (6, 3.0)):
        content = torch.load(tmp_path / "checkpoints" / f"step-000000{step}.ckpt", weights_only=True)
        assert content["animegen"]["metrics"]["val/score"] == score


def test_unknown_monitor_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(AnimegenError, match=r"monitor=val/psnr is no value of the validation; there are: val/score"):
        fit(Small(scores=[1.0]), tmp_path, Checkpoints(monitor="val/psnr"), steps=2, val_every=2)


def test_a_failing_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = pl.Trainer.save_checkpoint

    def full(trainer: pl.Trainer, path: Path, **options: object) -> None:
        save(trainer, path, **options)
        if trainer.lightning_module.train_step == 4:
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    with pytest.raises(AnimegenError, match=r"last\.ckpt' cannot be written \(No space left on device\)"):
        fit(Small(), tmp_path, Checkpoints(every=2), steps=6)
    assert names(tmp_path) == ["last.ckpt"]
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 2


def test_spoilt_weights_are_never_saved(tmp_path: Path) -> None:
    class Spoil(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, module: LightningAdapter, *_: object) -> None:
            if module.train_step == 4:
                module.model.generator.weight.data.fill_(float("nan"))

    with pytest.raises(AnimegenError, match="weights of 'generator' became nan in train step 4"):
        fit(Small(), tmp_path, Spoil(), Checkpoints(every=2), steps=6)
    assert step_of(tmp_path / "checkpoints" / "last.ckpt") == 2


@pytest.mark.parametrize(("settings", "words"), [({"every": 0}, "every must be"), ({"mode": "best"}, "mode must be")])
def test_wrong_settings(settings: dict, words: str) -> None:
    with pytest.raises(AnimegenError, match=words):
        Checkpoints(**settings)
