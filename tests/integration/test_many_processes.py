"""Training cut up over processes (FSDP), and on several machines: two on this one, which talk over the network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from animegen import load_model
from animegen.cli import train as train_verb
from animegen.engine.checkpoint import read_checkpoint
from tests.integration.test_ddp import TOY, WITNESS
from tests.support import command, refused, run_verb, tiny, train

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Lightning starts processes differently there")


def assert_close(mine: Path, other: Path) -> None:
    """Check that two runs ended with the same weights, but for the order of additions."""
    for key, value in read_checkpoint(other)["state_dict"].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(read_checkpoint(mine)["state_dict"][key], value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_sharded_training_is_training(tmp_path: Path) -> None:
    one = train(*TOY, "data.batch_size=4", output=tmp_path / "one")
    words = [*tiny(*TOY, "data.batch_size=2", "trainer=fsdp"), "trainer.devices=2"]
    words.remove("evaluate=false")
    words.append("model.channels_last=true")  # as most models are trained
    done = command("train", *words, "data.test_scenes=2", f"output={tmp_path / 'two'}", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert_close(tmp_path / "two", one)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert (record["status"], record["train_step"]) == ("finished", 4)
    assert record["parameters"] == json.loads((one / "run.json").read_text())["parameters"]
    assert len(list((tmp_path / "two" / "previews").iterdir())) == 3
    # The checkpoint is whole: it is applied and resumed as any other.
    assert load_model(tmp_path / "two", device="cpu").train_step == 4
    further = ("trainer=default", "trainer.devices=1", "train_steps=5", f"output={tmp_path / 'further'}")
    assert run_verb(train_verb.main, f"resume={tmp_path / 'two'}", *further) == 0
    assert read_checkpoint(tmp_path / "further")["animegen"]["train_step"] == 5


@pytest.mark.slow
def test_sharded_adversarial_training(tmp_path: Path) -> None:
    """Networks that are frozen in turn get the gradients that they get unsharded."""
    gone = ("~model.objectives.generator.content", "~model.objectives.generator.style")
    l1 = "{loss:{_target_:animegen.losses.L1},reads:{image:fake,reference:photo}}"
    pretrain = ("~model.objectives.pretrain.content", f"+model.objectives.pretrain.l1={l1}", "model.pretrain_steps=1")
    words = tiny("model=animegan/v2_lite", *gone, *pretrain, "train_steps=4", "logger=csv", "val_every=2")
    words.append("model.channels_last=false")  # shards have no such order; here both are to add in the same one
    for name in ("fsdp", "ddp_cpu"):
        done = command("train", *words, f"trainer={name}", "trainer.devices=2", f"output={tmp_path / name}", cwd=ROOT)
        assert done.returncode == 0, done.stderr
    assert_close(tmp_path / "fsdp", tmp_path / "ddp_cpu")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(*words: str) -> list[subprocess.CompletedProcess[str]]:
    """Run a command on two 'machines' of one process each."""
    port = free_port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    nodes = []
    for rank in range(2):
        where = ("--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}", "--master-addr=127.0.0.1")
        line = [sys.executable, "-m", "torch.distributed.run", *where, f"--master-port={port}", "-m", "animegen"]
        nodes.append(
            subprocess.Popen(
                [*line, "train", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
            )
        )
    ends = [(node, *node.communicate(timeout=300)) for node in nodes]
    return [subprocess.CompletedProcess(node.args, node.returncode, out, err) for node, out, err in ends]


@pytest.mark.slow
def test_two_machines_train_as_one(tmp_path: Path) -> None:
    one = train(*TOY, "data.batch_size=4", output=tmp_path / "one")
    words = tiny(*TOY, WITNESS, "data.batch_size=2", "trainer=multinode")
    for node in torchrun(*words, f"output={tmp_path / 'two'}"):
        assert node.returncode == 0, node.stderr
    said = [json.loads((tmp_path / "two" / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert said[0]["weights"] == said[1]["weights"]
    assert said[1]["samples"] == [2, 3, 6, 7, 10, 11, 14, 15]
    assert_close(tmp_path / "two", one)


def test_torchrun_needs_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    assert "set output=<shared folder>" in refused(capsys, run_verb(train_verb.main, *tiny(*TOY)))
