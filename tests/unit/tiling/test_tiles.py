"""Tiles must give the result of the whole picture, whatever the network normalises over."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.animegan.networks import AnimeGANv1, AnimeGANv2, AnimeGANv2Lite
from animegen.nn.norm import InstanceNorm, LayerNorm, statistics
from animegen.tiling import tiles as tiling
from animegen.tiling.receptive_field import measure_reach
from animegen.tiling.recorder import Statistics, TilingError, _slots
from animegen.tiling.tiles import _combined, _Grid, _moments, tileable, tiled


class Skips(nn.Module):
    """A U-Net with what real ones have: strides with one-sided padding, both kinds of skips, sizes read off a map."""

    size_divisor = 4

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 8, 7), norm(8)
        self.down1, self.norm1 = nn.Conv2d(8, 12, 3, stride=2), norm(12)
        self.down2, self.norm2 = nn.Conv2d(12, 16, 3, stride=2), norm(16)
        self.middle, self.norm3 = nn.Conv2d(16, 16, 3), norm(16)
        self.up, self.norm4 = nn.Conv2d(16 + 12, 8, 3, padding=1), norm(8)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        full = F.leaky_relu_(self.stem_norm(self.stem(F.pad(x, (3, 3, 3, 3), mode="reflect"))), 0.2)
        half = F.leaky_relu_(self.norm1(self.down1(F.pad(full, (0, 1, 0, 1), mode="reflect"))), 0.2)
        low = F.leaky_relu_(self.norm2(self.down2(F.pad(half, (1, 0, 1, 0)))), 0.2)
        low = low + self.norm3(self.middle(F.pad(low, (1, 1, 1, 1), mode="reflect")))
        up = F.interpolate(low, size=half.shape[-2:], mode="bilinear")
        up = F.relu(self.norm4(self.up(torch.cat([up, half], 1))))
        up = F.interpolate(up, scale_factor=2, mode="nearest") + full
        return torch.tanh(self.last(up))


NETWORKS = {
    "instance norm, skips": lambda: Skips(InstanceNorm),
    "layer norm, skips": lambda: Skips(LayerNorm),
    "animegan v1": lambda: AnimeGANv1(blocks=2, width=0.125),
    "animegan v1, tf1 resizing": lambda: AnimeGANv1(blocks=1, width=0.125, upsample="tf1"),
    "animegan v2": lambda: AnimeGANv2(width=0.125),
    "animegan v2 lite": lambda: AnimeGANv2Lite(width=0.25),
    "animegan v2, pixel shuffle": lambda: AnimeGANv2(width=0.125, upsample="pixelshuffle"),
}


def noise(*size: int) -> Tensor:
    """Return a picture whose statistics differ from place to place."""
    picture = torch.rand(size) * 2 - 1
    return picture * torch.linspace(0.1, 1, size[-1]) + torch.linspace(-0.5, 0.5, size[-2])[:, None]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width", "tile"), [(104, 136, 64), (152, 40, 48), (96, 96, 40)])
def test_tiles_give_the_result_of_the_whole_picture(name: str, height: int, width: int, tile: int) -> None:
    network = NETWORKS[name]().eval()
    images = noise(2, 3, height, width)
    with torch.no_grad():
        whole = network(images)
        naive = torch.cat([network(part) for part in images.split(width // 2, -1)], -1) if width % 16 == 0 else None
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the warning that it ran untiled
        result = tiled(network, images, tile)
    assert (result - whole).abs().max() < 1e-4
    assert not result.requires_grad
    if naive is not None:  # what a tiling without shared statistics is off by
        assert (naive - whole).abs().max() > 0.05


def test_lade_is_as_exact_as_its_conditioning_allows() -> None:
    # At random weights LADE multiplies rounding errors: compare with what a change in the last digits does.
    network = AnimeGANv2(width=0.125, norm="lade").eval()
    images = noise(1, 3, 96, 128)
    with torch.no_grad():
        whole = network(images)
        sensitivity = (network(images + 1e-6 * torch.randn_like(images)) - whole).abs().max()
    assert (tiled(network, images, 64) - whole).abs().max() < 2 * sensitivity


def test_without_normalisation_tiles_are_exact() -> None:
    network = AnimeGANv2(width=0.125, norm=None).eval()
    images = noise(1, 3, 160, 224)
    with torch.no_grad():
        whole = network(images)
    assert tileable(network).normalisations == 0
    assert (tiled(network, images, 80) - whole).abs().max() < 1e-6
    # The measured halo is needed: half of it shows.
    assert (tiled(network, images, 80, halo=tileable(network).radius // 2) - whole).abs().max() > 1e-3


def test_bfloat16() -> None:
    network = Skips(LayerNorm).eval()
    images = noise(1, 3, 96, 128)
    whole = tiled(network, images, 0, dtype=torch.bfloat16)
    result = tiled(network, images, 48, dtype=torch.bfloat16)
    assert result.dtype == torch.float32
    assert (result - whole).abs().max() < 0.03
    assert (tiled(network, images, 0) - whole).abs().max() > 1e-4  # it did run in bfloat16


def test_weights_may_change_in_place() -> None:
    network = AnimeGANv2(width=0.125).eval()
    images = noise(1, 3, 64, 96)
    before = tiled(network, images, 48)
    with torch.no_grad():
        network.to_rgb.weight.mul_(-1)
    assert torch.equal(tiled(network, images, 48), -before)


# --- how far networks look --------------------------------------------------------------------------------


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).eval()


def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation)


class NormOfOriginal(InstanceNorm):
    """Asks for the statistics of a copy, so that setting its halo right does not help."""

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = statistics(self, x.clone(), (2, 3))
        return (x - mean) / torch.sqrt(variance + self.eps)


@pytest.mark.parametrize(
    ("network", "radius", "normalisations"),
    [
        (chain(conv(3, 3, 1)), 0, 0),
        (chain(conv(3, 3, 7)), 3, 0),
        (chain(conv(3, 4, 5), nn.ReLU(), conv(4, 3, 3)), 3, 0),
        (chain(conv(3, 3, 3, dilation=4)), 4, 0),
        (chain(conv(3, 4, 5), InstanceNorm(4), conv(4, 3, 3)), 2, 1),
        (chain(conv(3, 4, 3), LayerNorm(4), conv(4, 3, 7)), 3, 1),
        (chain(conv(3, 4, 5), LayerNorm(4), nn.ReLU(), conv(4, 4, 3), InstanceNorm(4), conv(4, 3, 3)), 2, 2),
        (chain(conv(3, 4, 3), NormOfOriginal(4), conv(4, 3, 7)), 1 + 3, 1),
    ],
)
def test_reach_by_hand(network: nn.Module, radius: int, normalisations: int) -> None:
    reach = measure_reach(network)
    assert (reach.radius, reach.normalisations) == (radius, normalisations)


def test_reach_at_lower_resolution() -> None:
    network = chain(nn.Conv2d(3, 4, 2, stride=2), conv(4, 4, 3), nn.Upsample(scale_factor=2), conv(4, 3, 1))
    network.size_divisor = 2  # type: ignore[assignment]
    # One position at half resolution next to the block of two pixels.
    assert measure_reach(network).radius == 2


def test_a_skip_carries_its_reach_past_a_normalisation() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.norm = conv(3, 3, 5), conv(3, 3, 3), InstanceNorm(3)
            self.last = conv(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x + self.norm(self.branch(x)))

    network = Residual().eval()
    assert measure_reach(network).radius == 3  # 2 of first and 1 of last, the norm does not help the skip
    images = noise(1, 3, 64, 80)
    with torch.no_grad():
        assert (tiled(network, images, 32) - network(images)).abs().max() < 1e-5


@pytest.mark.parametrize("steps_differ", [False, True])
def test_steps_that_depend_on_the_size_are_recorded_for_the_window(steps_differ: bool) -> None:
    network = Skips(LayerNorm).eval() if steps_differ else AnimeGANv2(width=0.125).eval()
    assert (measure_reach(network).tape is None) == steps_differ


# --- networks that cannot be tiled --------------------------------------------------------------------------


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * x.mean((2, 3), keepdim=True)


class Positions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0, 1, x.shape[-1])


class Reader(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().max().item()


class Numpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


class Says(nn.Module):
    tileable = False

    def forward(self, x: Tensor) -> Tensor:
        return -x


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Pooled(), "looks further than"),
        (chain(conv(3, 4, 3), nn.InstanceNorm2d(4), conv(4, 3, 3)), "looks further than"),
        (Positions(), "depends on its position"),
        (AnimeGANv2(width=0.125, upsample="bilinear_align"), "depends on its position"),
        (Reader(), "values of its activations in Python"),
        (Numpy(), "values of its activations in Python"),
        (Says(), "looks at the whole picture"),
        (chain(nn.Conv2d(3, 4, 3, padding=2), LayerNorm(4), nn.Conv2d(4, 3, 3)), "normalises a map"),
    ],
)
def test_what_cannot_be_tiled_runs_whole_and_says_why(network: nn.Module, why: str) -> None:
    network.eval()
    images = noise(1, 3, 64, 96)
    with torch.no_grad():
        whole = network(images)
    with pytest.warns(UserWarning, match=f"not cut into tiles: .*{why}"):
        result = tiled(network, images, 48)
    assert torch.equal(result, whole)
    with pytest.raises(TilingError, match=why):
        tileable(network)


def test_wrong_use() -> None:
    network = AnimeGANv2(width=0.125)
    with pytest.raises(ValueError, match="training mode"):
        tiled(network, noise(1, 3, 64, 64), 32)
    with pytest.raises(ValueError, match="62x64 pixels, but the network needs multiples of 4"):
        tiled(network.eval(), noise(1, 3, 64, 62), 32)


def test_errors_of_the_network_reach_the_caller() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(1, 3, 64, 96)

    with pytest.warns(UserWarning, match="fails on small pictures"):
        assert tiled(Fails().eval(), noise(1, 3, 64, 96), 48).shape == (1, 3, 64, 96)
    with pytest.raises(RuntimeError, match="shape"):
        tiled(Fails().eval(), noise(1, 3, 64, 64), 0)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("name", ["animegan v2", "animegan v1, tf1 resizing"])
def test_one_tile_per_core(name: str) -> None:
    network = NETWORKS[name]().eval()
    images = noise(1, 3, 96, 136)
    with torch.no_grad():
        whole = network(images)
    first, again = tiled(network, images, 48), tiled(network, images, 48)
    assert (first - whole).abs().max() < 1e-4
    assert torch.equal(first, again)  # whichever core takes which tile
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_a_tile_that_fails_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = AnimeGANv2(width=0.125).eval()
    tileable(network)
    calls = []

    def fails(x: Tensor, dims: tuple[int, ...]) -> Any:
        calls.append(x)
        if len(calls) == 20:  # in the middle of the second meeting of twelve tiles
            raise MemoryError("no more")
        return _moments(x, dims)

    monkeypatch.setattr(tiling, "_moments", fails)
    with pytest.raises(MemoryError, match="no more"):
        tiled(network, noise(1, 3, 96, 128), 32)
    assert len(calls) <= 24
    assert torch.get_num_threads() == 2


# --- parts ------------------------------------------------------------------------------------------------------


def test_what_waits_is_only_what_later_steps_need() -> None:
    tape = measure_reach(AnimeGANv2(width=0.125).eval()).tape
    assert tape is not None
    alive, waiting = {tape.input}, []
    for step in tape.steps:
        if isinstance(step, Statistics):
            waiting.append(len(alive))
            alive |= {step.mean, step.variance}
        else:
            alive |= set(_slots(step.result))
        alive -= set(step.frees)
    assert alive == {tape.output}
    # The map to be normalised, and in the three residual blocks with three norms each also their input.
    assert sorted(set(waiting)) == [1, 2]
    assert waiting.count(2) == 9


def test_moments_of_parts_are_those_of_the_whole() -> None:
    # A mean far from zero: sums of squares in float32 would lose the variance (1 beside 10^8).
    x = torch.randn(2, 3, 20, 30, dtype=torch.float64) + 1e4
    whole = x.float()
    parts = [whole[..., :7, :], whole[..., 7:, :11], whole[..., 7:, 11:]]
    for dims in ((2, 3), (1, 2, 3)):
        mean, variance = _combined([_moments(part, dims) for part in parts])
        exact = whole.double()
        assert torch.allclose(mean.double(), exact.mean(dims, keepdim=True), rtol=1e-7)
        assert torch.allclose(variance.double(), exact.var(dims, correction=0, keepdim=True), rtol=2e-3)


@pytest.mark.parametrize(
    ("height", "width", "tile", "halo", "factor"),
    [(1080, 1920, 512, 8, 8), (100, 36, 32, 4, 4), (7, 31, 10, 3, 1)],
)
def test_cores_partition_and_windows_are_alike(height: int, width: int, tile: int, halo: int, factor: int) -> None:
    grid = _Grid.cut(height, width, tile, halo, factor)
    covered = torch.zeros(height, width)
    for core, window in zip(grid.cores, grid.windows, strict=True):
        core.of(covered, grid.picture).add_(1)
        assert max(core.bottom - core.top, core.right - core.left) <= tile
        assert all(value % factor == 0 for value in (core.top, core.left, window.top, window.left))
        for inside, outside, end in (
            ((core.top, core.bottom), (window.top, window.bottom), height),
            ((core.left, core.right), (window.left, window.right), width),
        ):
            assert outside[0] <= max(inside[0] - halo, 0)
            assert outside[1] >= min(inside[1] + halo, end)
            assert outside[0] >= 0
            assert outside[1] <= end
    assert torch.equal(covered, torch.ones(height, width))
    assert len({(w.bottom - w.top, w.right - w.left) for w in grid.windows}) == 1
    assert len(grid.cores) == math.ceil(height / tile) * math.ceil(width / tile)
    # Every window is its own core plus what it borrows.
    for i, window in enumerate(grid.windows):
        borrowed = sum((b.bottom - b.top) * (b.right - b.left) for j, _, b in grid.borrowed if j == i)
        core = grid.cores[i]
        own = (core.bottom - core.top) * (core.right - core.left)
        assert own + borrowed == (window.bottom - window.top) * (window.right - window.left)
