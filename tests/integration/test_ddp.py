"""Distributed training through the real command: equal ranks, one folder, and the arithmetic of a bigger batch."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from animegen.engine import AnimegenError
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.lightning import LightningAdapter
from tests.support import assert_same_state, command, sentence, tiny, train

ROOT = Path(__file__).parents[2]
TOY = ("experiment=toy/quickstart", "logger=csv", "val_every=2", "train_steps=4", "data.val_scenes=3")
WITNESS = "+callbacks.witness={_target_:tests.integration.test_ddp.Witness}"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Lightning starts processes differently there")


class Witness(pl.Callback):
    """Lets each process write down its weights and which samples it trained on."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: LightningAdapter, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.samples += batch["sample"].tolist()

    def on_train_end(self, trainer: pl.Trainer, module: LightningAdapter) -> None:
        weights = b"".join(value.detach().numpy().tobytes() for value in module.parameters())
        said = {"weights": hashlib.sha256(weights).hexdigest(), "samples": self.samples}
        Path(trainer.default_root_dir, f"rank{trainer.global_rank}.json").write_text(json.dumps(said))


def distributed(*words: str, output: Path) -> list[dict[str, Any]]:
    """Train with two processes; return what each of them wrote."""
    resumed = any(word.startswith("resume=") for word in words)
    words = tuple(words) if resumed else tuple(tiny(*words, WITNESS, "trainer=ddp_cpu"))
    done = command("train", *words, f"output={output}", cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_train_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    whole = train(*TOY, "data.batch_size=4", output=tmp_path / "one")
    first, second = distributed(*TOY, "data.batch_size=2", output=tmp_path / "two")
    assert first["weights"] == second["weights"]
    # Step s of rank r trains on samples 4 s + 2 r and the next.
    assert first["samples"] == [0, 1, 4, 5, 8, 9, 12, 13]
    assert second["samples"] == [2, 3, 6, 7, 10, 11, 14, 15]
    one, two = read_checkpoint(whole), read_checkpoint(tmp_path / "two")
    for key, value in one["state_dict"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(two["state_dict"][key], value, rtol=1e-4, atol=1e-6)
    assert two["animegen"]["train_step"] == 4
    # All validation samples of all ranks count once (three samples here, two of them on one rank).
    assert two["animegen"]["metrics"]["val/psnr"] == pytest.approx(one["animegen"]["metrics"]["val/psnr"], rel=1e-4)
    # One process writes, into one folder.
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("one", "user")] == ["two"]
    assert sorted(p.name for p in (tmp_path / "two" / "previews").iterdir()) == [
        "step-0000001.png",
        "step-0000002.png",
        "step-0000004.png",
    ]


@pytest.mark.slow
def test_adversarial_training_keeps_ranks_equal_and_resumes_to_the_bit(tmp_path: Path) -> None:
    words = ("model=animegan/v2_lite", "model.pretrain_steps=1", "model.discriminator.dropout=0.3", "val_every=2")
    no_features = ("~model.objectives.generator.content", "~model.objectives.generator.style")
    words += (
        *no_features,
        "+model.objectives.pretrain.l1={loss:{_target_:animegen.losses.L1},reads:{image:fake,reference:photo}}",
    )
    words += ("~model.objectives.pretrain.content", "callbacks.checkpoints.every=1", "callbacks.checkpoints.keep=-1")
    first, second = distributed(*words, "train_steps=4", output=tmp_path / "whole")
    assert first["weights"] == second["weights"]
    checkpoint = tmp_path / "whole" / "checkpoints" / "step-0000002.ckpt"
    resumed = distributed(f"resume={checkpoint}", "trust=true", output=tmp_path / "resumed")
    assert [said["weights"] for said in resumed] == [first["weights"]] * 2
    assert_same_state(read_checkpoint(tmp_path / "whole"), read_checkpoint(tmp_path / "resumed"))
    masks = read_checkpoint(checkpoint)["callbacks"]["ExactResume"]["processes"]
    assert not torch.equal(masks[0]["torch"], masks[1]["torch"])


class Mistaken(pl.Callback):
    """Fails in the first process only; the other one would wait for it for half an hour."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: LightningAdapter, *_: Any) -> None:
        if trainer.is_global_zero and module.train_step == 1:
            raise AnimegenError("this is wrong: do that.")


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_all(tmp_path: Path) -> None:
    words = tiny(*TOY, "trainer=ddp_cpu", "+callbacks.mistaken={_target_:tests.integration.test_ddp.Mistaken}")
    done = command("train", *words, f"output={tmp_path / 'run'}", cwd=ROOT, timeout=120)
    assert sentence(done.stderr, done.returncode) == "animegen: this is wrong: do that."
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "crashed"
