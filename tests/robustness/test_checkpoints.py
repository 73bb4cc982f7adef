"""Checkpoints that are not what they should be: of another version, damaged, or malicious."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from animegen import load_model
from animegen.cli import evaluate, export, generate, interpolate, stylize
from animegen.cli import import_weights as importing
from animegen.cli import train as train_verb
from animegen.errors import AnimegenError
from animegen.media.images import write_image
from tests.support import refused, run_verb


@pytest.fixture
def toy(toy: Path) -> Path:
    return toy / "checkpoints" / "last.ckpt"


def changed(toy: Path, target: Path, change: Any) -> Path:
    """Write the checkpoint with something changed."""
    content = torch.load(toy, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.witness,))


@pytest.mark.parametrize("wrapped", ["bare", "torch", "inside"])
@pytest.mark.parametrize("verb", [evaluate, export, generate, importing, interpolate, stylize, train_verb])
def test_a_malicious_pickle_does_not_run(
    verb: Any, wrapped: str, toy: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    witness, evil = tmp_path / "ran", tmp_path / "checkpoints" / "evil.ckpt"
    evil.parent.mkdir()
    if wrapped == "bare":
        evil.write_bytes(pickle.dumps(Malicious(witness)))
    elif wrapped == "torch":
        torch.save({"state_dict": {}, "animegen": Malicious(witness)}, evil)
    else:
        changed(toy, evil, lambda content: content["animegen"].update(config=Malicious(witness)))
    write_image(tmp_path / "a.png", torch.zeros(3, 16, 16, dtype=torch.uint8))
    (tmp_path / "run.json").write_text('{"overrides": []}')
    first = {importing: "source", train_verb: "resume"}.get(verb, "checkpoint")
    more = {
        stylize: [f"input={tmp_path / 'a.png'}", f"output={tmp_path / 'b.png'}"],
        interpolate: [f"input=[{tmp_path / 'a.png'},{tmp_path / 'a.png'}]", f"output={tmp_path / 'b'}"],
        generate: [f"keys=[{tmp_path / 'a.png'},{tmp_path / 'a.png'}]", f"output={tmp_path / 'b'}"],
        export: ["format=pt2", f"output={tmp_path / 'b.pt2'}"],
        importing: [f"output={tmp_path / 'b.ckpt'}"],
    }.get(verb, [])
    refused(capfd, run_verb(verb.main, f"{first}={evil}", *more))
    assert not witness.exists()


def test_checkpoints_of_other_versions(toy: Path, tmp_path: Path) -> None:
    old = changed(toy, tmp_path / "old.ckpt", lambda content: content["animegen"].update(version="0.0.1"))
    new = changed(toy, tmp_path / "new.ckpt", lambda content: content["animegen"].update(version="99.0"))
    assert load_model(old, device="cpu").train_step == load_model(new, device="cpu").train_step == 1
    # Settings that came or went since.
    gone = changed(
        toy, tmp_path / "gone.ckpt", lambda content: content["animegen"]["config"]["model"]["generator"].update(old=3)
    )
    with pytest.raises(AnimegenError, match="old"):
        load_model(gone, device="cpu")
    bare = changed(toy, tmp_path / "bare.ckpt", lambda content: content.pop("animegen"))
    with pytest.raises(AnimegenError, match="is not a checkpoint of animegen"):
        load_model(bare, device="cpu")


@pytest.mark.parametrize("damage", ["empty", "half", "text", "flipped", "zip"])
def test_damaged_checkpoints(damage: str, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(toy.parents[1], tmp_path / "run")
    path, data = folder / "checkpoints" / "last.ckpt", toy.read_bytes()
    damaged = {"empty": b"", "half": data[: len(data) // 2], "text": b"hello", "flipped": data[:100] + b"\xff" * 64}
    if damage == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("hello", "there")
    else:
        path.write_bytes(damaged[damage])
    with pytest.raises(AnimegenError, match=r"last\.ckpt' cannot be read as a checkpoint"):
        load_model(path, device="cpu")
    message = refused(capsys, run_verb(train_verb.main, f"resume={folder}", "train_steps=5"))
    assert f"'{path}' cannot be read as a checkpoint" in message
