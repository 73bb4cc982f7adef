"""A traced network must compute on other images what the network computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.animegan.networks import AnimeGANv2
from animegen.nn.norm import InstanceNorm, LayerNorm
from animegen.tiling.graph import Segment, TilingError, trace


def run(segments: list[Segment], images: Tensor) -> Tensor:
    """Run the segments on an image that is one tile."""
    values = {segments[0].reads[0]: images}
    for segment in segments:
        segment.prepare(values)
        written, result = segment.run([values[node] for node in segment.reads], values)
        values.update(zip(segment.writes, written, strict=True))
        if segment.reduction is not None:
            total = segment.reduction.total()
            total.add(segment.reduction.moments(result))
            values[segment.reduced] = total.result(result.dtype)
    return result


class Everything(nn.Module):
    """Lists, tuples, in-place steps, views, unused results, constants and both kinds of reductions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.gate = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        unused = x * 5
        y = F.leaky_relu_(self.norm(self.conv(torch.cat([x, x.flip(-1)], dim=1))), 0.2)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[..., None, None]
        first, second = y.chunk(2, dim=1)
        first = first.clone()
        first[..., ::2] = 0
        first += second
        deviation, mean = torch.var_mean(second, 1, keepdim=True)
        assert unused.shape == x.shape
        return torch.stack([first.sum(1), second.amax(dim=1), (deviation - mean)[:, 0]], 1) + torch.ones(3, 1, 1)


def test_running_the_segments_is_running_the_network() -> None:
    network = Everything().eval()
    with torch.no_grad():
        nn.init.normal_(network.norm.bias)
        segments = trace(network, torch.randn(2, 3, 12, 20))
        images = torch.randn(2, 3, 12, 20)
        torch.testing.assert_close(run(segments, images.clone()), network(images))
        network.conv.weight.mul_(-1)  # weights are referenced
        torch.testing.assert_close(run(segments, images.clone()), network(images))
    assert [None if segment.reduction is None else segment.reduction.groups for segment in segments] == [2, None, None]


def test_autocast_is_part_of_the_graph() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), LayerNorm(8), nn.Conv2d(8, 3, 3)).eval()
    images = torch.randn(1, 3, 12, 20)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            segments = trace(network, images)
            expected = network(images)
        result = run(segments, images)
    assert result.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(result, expected, atol=0.05, rtol=0.05)


def test_a_segment_stores_only_what_later_ones_read() -> None:
    segments = trace(AnimeGANv2(width=0.125).eval(), torch.zeros(1, 3, 32, 32))
    assert len(segments) == 25
    # The map that is normalised, and in the three residual blocks with three norms each also their input.
    live: set[object] = set()
    waiting = []
    for number, segment in enumerate(segments[:-1]):
        live |= set(segment.writes)
        live = {node for node in live if any(node in later.reads for later in segments[number + 1 :])}
        waiting.append(len(live))
    assert waiting.count(1) == 24 - 9
    assert waiting.count(2) == 9


def test_a_map_that_is_only_reduced_is_not_stored() -> None:
    segments = trace(lambda x: x + x.square().mean((2, 3), keepdim=True), torch.zeros(1, 3, 8, 8))
    assert [segment.writes for segment in segments] == [[], []]


def test_what_does_not_depend_on_the_image_is_computed_once() -> None:
    norm = InstanceNorm(3)
    segments = trace(norm, torch.zeros(1, 3, 8, 8))
    assert [node.name for node in segments[1].local.graph.nodes if node.op == "call_function"] == ["_apply"]
    assert [node.name for node in segments[1].common.graph.nodes if node.op == "call_function"] == ["_affine"]


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (lambda x: x / x.max().item(), "uses values of its activations in Python"),
        (lambda x: x if x.mean() > 0 else -x, "cannot be traced .*data-dependent"),
        (lambda x: torch.as_tensor(x.tolist()), "cannot be traced .*data-dependent"),
        (lambda x: torch.from_numpy(x.numpy()), "cannot be traced .*numpy"),
    ],
)
def test_values_read_in_python_are_refused(network: nn.Module, why: str) -> None:
    with pytest.raises(TilingError, match=why):
        trace(network, torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("network", [lambda x: torch.ones(1, 3, 4, 4), lambda x: x.mean((2, 3), keepdim=True)])
def test_an_output_that_is_no_map_is_refused(network: nn.Module) -> None:
    with pytest.raises(TilingError, match="output does not depend on the position"):
        trace(network, torch.rand(1, 3, 4, 4))
