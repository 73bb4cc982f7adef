"""A recorded network must do on other pictures what the network does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.nn.norm import InstanceNorm
from animegen.tiling.recorder import Slot, Statistics, Tape, TilingError, record


def own_statistics(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return mean, variance


def play(tape: Tape, images: Tensor) -> tuple[Tensor, dict[Slot, Tensor]]:
    values = {tape.input: images}
    for step in tape.steps:
        if isinstance(step, Statistics):
            values[step.mean], values[step.variance] = own_statistics(values[step.x], step.dims)
            for slot in step.frees:
                values.pop(slot, None)
        else:
            step.run(values)
    return values[tape.output], values


class Everything(nn.Module):
    """Lists, tuples, in-place steps, steps that return nothing, views, unused results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 4, 3, padding=1)
        self.norm = InstanceNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        unused = x * 5
        y = F.leaky_relu_(self.norm(self.conv(torch.cat([x, x.flip(-1)], dim=1))), 0.2)
        first, second = y.chunk(2, dim=1)
        first = first.clone()
        first[..., ::2] = 0
        first += second
        deviation, mean = torch.var_mean(second, 1, keepdim=True)
        assert unused.shape == x.shape
        return torch.stack([first.sum(1), second.amax(dim=1), (deviation - mean)[:, 0]], 1)


def test_playing_is_running() -> None:
    network = Everything().eval()
    with torch.no_grad():
        tape, output = record(network, torch.randn(1, 3, 8, 8), own_statistics)
        images = torch.randn(2, 3, 12, 20)
        result, values = play(tape, images.clone())
        assert torch.allclose(result, network(images), atol=1e-6)
    assert output.shape == (1, 3, 8, 8)
    assert list(values) == [tape.output]  # everything else was let go
    assert tape.normalisations == 1


def test_tapes_are_equal_if_they_do_the_same_with_the_same_weights() -> None:
    network, twin = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    small, large = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 6)
    tape = record(network, small, own_statistics)[0]
    assert tape == record(network, large, own_statistics)[0]
    assert tape != record(twin, large, own_statistics)[0]
    fixed = [record(lambda x: F.interpolate(x, size=x.shape[-2:]), x, own_statistics)[0] for x in (small, large)]
    assert fixed[0] != fixed[1]


def test_what_the_provider_computes_is_not_recorded() -> None:
    def provider(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        mean, variance = own_statistics(x, dims)
        return mean + 0, variance * 1

    tape, _ = record(InstanceNorm(3, affine=False), torch.randn(1, 3, 4, 4), provider)
    names = [getattr(step.function, "__name__", "") for step in tape.steps if not isinstance(step, Statistics)]
    assert "var_mean" not in names
    assert sum(isinstance(step, Statistics) for step in tape.steps) == 1


@pytest.mark.parametrize(
    "network",
    [
        lambda x: x / x.max().item(),
        lambda x: x if x.mean() > 0 else -x,
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: torch.as_tensor(x.tolist()),
    ],
)
def test_values_read_in_python_are_refused(network: nn.Module) -> None:
    with pytest.raises(TilingError, match="values of its activations in Python"):
        record(network, torch.rand(1, 3, 4, 4), own_statistics)
