"""Weights with the ports' names draw the same images in our network.

The ports' graph is written down a second time in ``ports.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from animegen.cli.import_weights import formats
from animegen.engine.checkpoint import load_model
from animegen.engine.weight_conversion import choose_conversion, convert, read_state
from animegen.errors import AnimegenError
from animegen.inference.import_weights import conversions, import_weights
from animegen.models.animegan.networks import AnimeGANv2
from tests.unit.models.ports import PORTS, draw, weights


@pytest.mark.parametrize(
    ("port", "words", "aligned"),
    [
        ("animegan2-pytorch", [], True),
        ("animegan2-pytorch", ["model.generator.upsample=bilinear"], False),
        ("pytorch-animegan", [], False),
    ],
)
def test_the_same_images(port: str, words: list[str], aligned: bool, tmp_path: Path) -> None:
    state = weights(port)
    torch.save(state, tmp_path / "theirs.pt")
    report = import_weights(tmp_path / "theirs.pt", tmp_path / "ours.ckpt", words=words)
    assert (report.conversion.name, report.tensors) == (port, len(state))
    assert report.parameters == sum(value.numel() for value in state.values())
    photo = torch.rand(2, 3, 32, 44) * 2 - 1
    expected = draw(port, state, photo, aligned)
    assert expected.std() > 0.2
    drawing = load_model(tmp_path / "ours.ckpt", "cpu").stylize(photo)[0]  # type: ignore[operator]
    assert (drawing - expected).abs().max() < 1e-5
    assert (drawing - draw(port, state, photo, not aligned)).abs().max() > 1e-3


@pytest.mark.parametrize(("port", "parameters"), [("animegan2-pytorch", 2_143_552), ("pytorch-animegan", 2_143_555)])
def test_every_tensor_of_the_full_width_has_its_place(port: str, parameters: int) -> None:
    state = weights(port, share=1)
    assert sum(value.numel() for value in state.values()) == parameters
    conversion = choose_conversion(state, conversions(), "auto", Path("x.pt"))
    assert conversion.name == port
    network = AnimeGANv2(output_bias=PORTS[port][2])
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    renamed = convert(state, conversion, shapes, Path("x.pt"))
    assert renamed.keys() == shapes.keys()
    network.load_state_dict(renamed)
    assert len({conversion.rename(key) for key in state}) == len(state)


def test_half_precision_and_every_usual_wrapping(tmp_path: Path) -> None:
    state = {"a.weight": torch.full((2,), 0.5, dtype=torch.float16), "a.bias": torch.zeros(2)}
    prefixed = {f"module.generator.{key}": value for key, value in state.items()}
    for content in (
        state,
        {"state_dict": state},
        {"model_state_dict": state, "optimizer_state_dict": {"state": {}}, "epoch": 3},
        {"generator": state, "discriminator": {"d": torch.zeros(1)}, "step": 7},
        {"model": {"state_dict": prefixed}},
        {f"_orig_mod.model.{key}": value for key, value in state.items()},
    ):
        torch.save(content, tmp_path / "x.pt")
        found = read_state(tmp_path / "x.pt")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_strict() -> None:
    port = "animegan2-pytorch"
    state = weights(port)
    shapes = {name: value.shape for name, value in AnimeGANv2(width=0.25).state_dict().items()}
    conversion = choose_conversion(state, conversions(), "auto", Path("x.pt"))
    state["block_a.0.2.weight"] = torch.zeros(9)
    state["extra.weight"] = state.pop("block_b.0.1.weight")
    with pytest.raises(AnimegenError) as error:
        convert(state, conversion, shapes, Path("x.pt"))
    assert str(error.value) == (
        "'x.pt' is not a complete generator of animegan2-pytorch; 1 tensor missing: block_b.0.1.weight; 1 tensor"
        " unknown: extra.weight; 1 tensor of another shape: block_a.0.2.weight (9 instead of 8)."
    )


def test_weights_that_are_not_finite() -> None:
    state = weights("pytorch-animegan")
    conversion = choose_conversion(state, conversions(), "pytorch-animegan", Path("x.pt"))
    shapes = {name: value.shape for name, value in AnimeGANv2(width=0.25, output_bias=True).state_dict().items()}
    state["decode_blocks.0.bias"][1] = float("nan")
    with pytest.raises(AnimegenError, match=r"not finite in decode_blocks.0.bias"):
        convert(state, conversion, shapes, Path("x.pt"))


def test_formats_are_listed_as_the_conversions_describe_themselves() -> None:
    assert formats() == {conversion.name: conversion.about for conversion in conversions()}
