"""The generator of areas and ink: its size, its start, what a line does, and training by the lines alone."""

from __future__ import annotations

import pytest
import torch

from animegen.losses import InkBCE
from animegen.models.animegan.networks import InkedUNet
from animegen.tiling.tiles import tiled


@pytest.mark.parametrize(("width", "count"), [(1.0, 2_140_823), (0.5, 540_503)])
def test_parameter_counts(width: float, count: int) -> None:
    assert sum(parameter.numel() for parameter in InkedUNet(width).parameters()) == count


def test_untrained_it_is_the_photo_under_faint_ink() -> None:
    photo = torch.rand(1, 3, 16, 24) * 2 - 1
    opacity = torch.sigmoid(torch.tensor(-2.0))
    expected = (photo + 1) * (1 - 0.75 * opacity) - 1
    torch.testing.assert_close(InkedUNet(0.125)(photo), expected)


def test_opaque_ink_darkens_to_its_colour() -> None:
    network = InkedUNet(0.125).eval()
    with torch.no_grad():
        network.network.last.bias[3] = 30.0
        network.ink.copy_(torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1))
        drawing = network(torch.ones(1, 3, 16, 16))
    assert drawing[0, :, 8, 8].tolist() == pytest.approx([0.0, -0.5, -1.0])


def test_ink_loss_is_the_cross_entropy_of_black_lines_on_white() -> None:
    ink = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2).expand(1, 3, 1, 2)  # a black pixel, a white pixel
    logits = torch.tensor([2.0, -3.0]).view(1, 1, 1, 2)
    expected = (torch.log1p(torch.exp(torch.tensor(-2.0))) + torch.log1p(torch.exp(torch.tensor(-3.0)))) / 2
    torch.testing.assert_close(InkBCE()(logits, ink), expected)


def test_it_learns_where_lines_are() -> None:
    torch.manual_seed(0)
    network, loss = InkedUNet(0.125), InkBCE()
    photo = torch.full((4, 3, 32, 32), 0.5)
    for image, column in zip(photo, (5, 12, 19, 26), strict=True):
        image[:, :, column] = -0.5
    ink = torch.where(photo < 0, -1.0, 1.0)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        losses.append(loss(network.draw(photo)[1], ink))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


def test_tiles_are_the_whole() -> None:
    network = InkedUNet(0.125).eval()
    torch.nn.init.normal_(network.network.last.weight, std=0.1)
    photo = torch.rand(1, 3, 160, 224) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(tiled(network, photo, tile=96), network(photo), atol=2e-5, rtol=0)
