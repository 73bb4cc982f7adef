"""``animegen import``: another project's weights become a checkpoint like any other, or nothing is written."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from animegen.cli import evaluate, stylize
from animegen.cli import import_weights as importing
from animegen.engine.checkpoint import load_model, read_checkpoint
from animegen.media.images import read_image, to_uint8
from tests.support import refused
from tests.unit.models.ports import draw, weights

PORT = "pytorch-animegan"


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_an_imported_generator_is_applied_and_scored_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = weights(PORT)
    wrapped = {"model_state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 12}
    source = saved(tmp_path / "it's theirs.pt", wrapped)
    output = tmp_path / "ours.ckpt"
    assert importing.main([f"source={source}", f"output={output}"]) == 0
    report = capsys.readouterr().out
    assert "pytorch-animegan: generators v2 of ptran1203/pytorch-animeGAN" in report
    assert f"tensors     {len(state)}, all of them used" in report
    assert f"parameters  {sum(value.numel() for value in state.values()):,}" in report
    assert "animegan/v2, model.generator.width=0.25 model.generator.output_bias=true" in report

    record = read_checkpoint(output)["animegen"]
    assert record["train_step"] == 0
    assert record["imported"] == {
        "file": "it's theirs.pt",
        "format": PORT,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }

    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    words = (f"checkpoint={output}", f"input={tmp_path / 'in.png'}", f"output={tmp_path / 'out.png'}", "device=cpu")
    assert stylize.main(list(words)) == 0
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    expected = to_uint8(draw(PORT, state, photo, aligned=False)[0])
    assert (read_image(tmp_path / "out.png").int() - expected.int()).abs().max() <= 1

    small = ("size=tiny", "data.scenes=1", "data.test_scenes=1", "data.frames_per_scene=1", "samples=1")
    assert evaluate.main([f"checkpoint={output}", "device=cpu", "features=none", *small]) == 0
    assert "0 train steps" in capsys.readouterr().out


def test_another_model_with_the_same_network(tmp_path: Path) -> None:
    source = saved(tmp_path / "a.pt", weights(PORT))
    words = (f"source={source}", f"output={tmp_path / 'a.ckpt'}", "model=animegan/paired")
    assert importing.main([*words, "+model.generator.upsample=nearest"]) == 0
    model = load_model(tmp_path / "a.ckpt", "cpu")
    assert model.run_info["choices"]["model"] == "animegan/paired"
    assert model.generator.layers[11].mode == "nearest"  # type: ignore[union-attr, index]


def test_an_existing_file_is_replaced_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "a.pt", weights(PORT))
    output = tmp_path / "a.ckpt"
    output.write_bytes(b"mine")
    words = (f"source={source}", f"output={output}")
    assert "exists: choose another output= or set overwrite=true" in refused(capsys, importing.main(list(words)))
    assert output.read_bytes() == b"mine"
    assert importing.main([*words, "overwrite=true"]) == 0
    assert load_model(output, "cpu").train_step == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "a.pt"]


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, [], "There is no file '.*a.pt'"),
        (b"no weights", [], "cannot be read as plain weights.*damaged, no PyTorch file, or holds Python objects"),
        (nn.Linear(2, 2), [], "cannot be read as plain weights.*save the generator's state_dict"),
        ([1, 2], [], "holds no state dict, neither directly nor under state_dict"),
        ({"epoch": 3, "state_dict": {}}, [], "holds no state dict"),
        (
            {"conv.weight": torch.zeros(2)},
            [],
            "not from a project that animegen can import .*called conv",
        ),
        ({"animegen": {}, "state_dict": {}}, [], "is a checkpoint of animegen already"),
        ("port", ["format=cartoon"], "format=cartoon is not possible: use auto, or one of animegan2-pytorch"),
        (
            "port",
            ["format=animegan2-pytorch"],
            "not a complete generator of animegan2-pytorch; 77 tensors missing: .*78 tensors unknown",
        ),
        ("port", ["model=animegan/v1"], "AnimeGANv1 has no setting 'output_bias'"),
        ("port", ["model=animegan/v9"], "no option 'model/animegan/v9'.*animegan/v2"),
        ("port", ["overwrit=true"], "no key 'overwrit'.*Did you mean 'overwrite'"),
        ("port", ["output=a.pth"], "output='a.pth' is no name of a checkpoint: use one that ends in .ckpt"),
    ],
)
def test_mistakes(
    content: Any, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "a.pt"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        saved(source, weights(PORT) if isinstance(content, str) else content)
    output = [] if words and words[0].startswith("output=") else [f"output={tmp_path / 'out' / 'a.ckpt'}"]
    text = refused(capsys, importing.main([f"source={source}", *output, *words]))
    assert re.search(message, text), text
    assert not (tmp_path / "out").exists()


def test_without_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Missing on the command line: source=... output=..." in refused(capsys, importing.main([]))
    assert importing.main(["--help"]) == 0
    assert "animegan2-pytorch" in capsys.readouterr().out
