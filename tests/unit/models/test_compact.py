"""The quickstart's own U-Net: its size, its borders, and that it starts and stays alive."""

from __future__ import annotations

import pytest
import torch

from animegen.errors import AnimegenError
from animegen.models.animegan.networks import CompactUNet
from animegen.nn.compact import ResidualBlock
from animegen.tiling.tiles import tiled


@pytest.mark.parametrize(("width", "count"), [(1.0, 2_141_955), (0.375, 306_515)])
def test_parameter_counts(width: float, count: int) -> None:
    assert sum(parameter.numel() for parameter in CompactUNet(width).parameters()) == count


def test_blocks_start_as_the_identity() -> None:
    block = ResidualBlock(8, "layer")
    x = torch.randn(2, 8, 6, 10)
    assert not torch.equal(block(x), x)
    network = CompactUNet(0.125, blocks=2)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            features = torch.randn(1, module.first.in_channels, 8, 8)
            assert torch.equal(module(features), features)


def test_with_a_shortcut_it_starts_as_the_photo() -> None:
    photo = torch.rand(1, 3, 16, 24) * 2 - 1
    assert torch.equal(CompactUNet(0.125, output="linear", shortcut=True)(photo), photo)


def test_shape_range_and_every_weight_is_trained() -> None:
    network = CompactUNet(0.125)
    pictures = network(torch.rand(2, 3, 32, 48) * 2 - 1)
    assert pictures.shape == (2, 3, 32, 48)
    assert pictures.abs().max() <= 1
    for module in network.modules():  # what starts at zero hides the layer before it
        if isinstance(module, ResidualBlock):
            torch.nn.init.normal_(module.second.weight, std=0.1)
    network(torch.rand(2, 3, 32, 48) * 2 - 1).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())


def test_a_bad_step_does_not_kill_it() -> None:
    network = CompactUNet(0.125)
    with torch.no_grad():
        network.head.bias.fill_(-20.0)  # every unit of the last layer far on its negative side
    network(torch.rand(1, 3, 32, 32) * 2 - 1).mean().backward()
    assert network.detail.weight.grad is not None
    assert network.last.weight.grad is not None
    assert network.last.weight.grad.abs().max() > 1e-6


def test_tiles_are_the_whole() -> None:
    network = CompactUNet(0.125).eval()
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            torch.nn.init.normal_(module.second.weight, std=0.05)
    photo = torch.rand(1, 3, 160, 224) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(tiled(network, photo, tile=96), network(photo), atol=2e-5, rtol=0)


def test_sides_must_fit() -> None:
    with pytest.raises(AnimegenError, match=r"multiples of 8.*not 40x41"):
        CompactUNet(0.125)(torch.zeros(1, 3, 40, 41))
