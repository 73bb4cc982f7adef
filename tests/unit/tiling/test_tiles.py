"""Tiles must give the result of the whole image, whatever the network normalises over."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from animegen.models.animegan.networks import (
    AnimeGANv1,
    AnimeGANv2,
    AnimeGANv2Lite,
    AnimeGANv3,
    CartoonGAN,
    CompactUNet,
    WhiteBoxUNet,
)
from animegen.models.fewshot.networks import FewShotGenerator
from animegen.models.temporal.networks.generator import TemporalGenerator
from animegen.nn.norm import InstanceNorm, LayerNorm
from animegen.tiling import tiles as tiling
from animegen.tiling.graph import TilingError, trace
from animegen.tiling.grid import Grid
from animegen.tiling.receptive_field import receptive_field
from animegen.tiling.reductions import Reduction
from animegen.tiling.tiles import halo_of, tiled


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


class SingleFrames(nn.Module):
    """The temporal generator on images without a past."""

    size_divisor = 8

    def __init__(self) -> None:
        super().__init__()
        self.generator = TemporalGenerator(width=0.125, self_attention=False, blocks=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.generator(x.unsqueeze(1))[0].squeeze(1)


NETWORKS = {
    "instance norm, skips": lambda: Skips(InstanceNorm),
    "layer norm, skips": lambda: Skips(LayerNorm),
    "animegan v1": lambda: AnimeGANv1(blocks=2, width=0.125),
    "animegan v1, tf1 resizing": lambda: AnimeGANv1(blocks=1, width=0.125, upsample="tf1"),
    "animegan v2": lambda: AnimeGANv2(width=0.125),
    "animegan v2 lite": lambda: AnimeGANv2Lite(width=0.25),
    "animegan v2, pixel shuffle": lambda: AnimeGANv2(width=0.125, upsample="pixelshuffle"),
    "animegan v3": lambda: AnimeGANv3(width=0.125),
    "cartoongan": lambda: CartoonGAN(width=0.125, blocks=2),
    "few-shot, instance norm": lambda: FewShotGenerator(width=0.125, blocks=2, norm="instance"),
    "few-shot, group norm": lambda: FewShotGenerator(width=0.125, blocks=2, norm="group"),
    "compact": lambda: CompactUNet(width=0.125),
    "temporal": SingleFrames,
}


def noise(*size: int) -> Tensor:
    """Return an image whose statistics differ from place to place."""
    picture = torch.rand(size) * 2 - 1
    return picture * torch.linspace(0.1, 1, size[-1]) + torch.linspace(-0.5, 0.5, size[-2])[:, None]


@pytest.mark.parametrize("name", NETWORKS)
def test_tiles_give_the_result_of_the_whole_image(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NETWORKS[name]().eval()
    differences = []
    for height, width, tile, memory in ((104, 136, 64, 2**29), (152, 40, 48, 2**17), (96, 96, 40, 0)):
        images = noise(2, 3, height, width)
        with torch.no_grad():
            whole = network(images)
            naive = torch.cat([network(part) for part in images.split(width // 2, -1)], -1) if width % 16 == 0 else None
        monkeypatch.setattr(tiling, "MEMORY", memory)  # all feature maps in memory, some, none
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the warning that it ran untiled
            result = tiled(network, images, tile)
        assert (result - whole).abs().max() < 1e-4
        assert not result.requires_grad
        if naive is not None:
            differences.append(float((naive - whole).abs().max()))
    assert max(differences) > 0.02  # the error of tiles with statistics of their own


def test_lade_is_as_exact_as_its_conditioning_allows() -> None:
    # At random weights LADE multiplies rounding errors: compare with what a change in the last digits does.
    network = AnimeGANv2(width=0.125, norm="lade").eval()
    images = noise(1, 3, 96, 128)
    with torch.no_grad():
        whole = network(images)
        sensitivity = (network(images + 1e-6 * torch.randn_like(images)) - whole).abs().max()
    assert (tiled(network, images, 64) - whole).abs().max() < 2 * sensitivity


@pytest.mark.parametrize(
    "build",
    [
        lambda: AnimeGANv2(width=0.125, norm=None),
        lambda: WhiteBoxUNet(width=0.125),
        lambda: FewShotGenerator(width=0.125, blocks=2),
    ],
)
def test_without_statistics_of_the_image_tiles_are_exact(build: Callable[[], nn.Module]) -> None:
    network = build().eval()
    images = noise(1, 3, 160, 224)
    with torch.no_grad():
        whole = network(images)
    assert len(trace(network, images)) == 1
    assert (tiled(network, images, 80) - whole).abs().max() < 1e-6
    # The measured halo is needed: a third of it shows.
    assert (tiled(network, images, 80, halo=halo_of(network) // 3) - whole).abs().max() > 1e-5


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


# --- receptive fields ------------------------------------------------------------------------------------


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers).eval()


def conv(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation)


@pytest.mark.parametrize(
    ("network", "radius"),
    [
        (chain(conv(3, 3, 1)), 0),
        (chain(conv(3, 3, 7)), 3),
        (chain(conv(3, 4, 5), nn.ReLU(), conv(4, 3, 3)), 3),
        (chain(conv(3, 3, 3, dilation=4)), 4),
        (chain(nn.Conv2d(3, 3, (1, 7), padding=(0, 3))), 3),
        (chain(nn.Conv2d(3, 3, (5, 1), padding=(2, 0))), 2),
        (chain(conv(3, 4, 5), InstanceNorm(4), conv(4, 3, 3)), 2),
        (chain(conv(3, 4, 3), LayerNorm(4), conv(4, 3, 7)), 3),
        (chain(conv(3, 4, 5), LayerNorm(4), nn.ReLU(), conv(4, 4, 3), InstanceNorm(4), conv(4, 3, 3)), 2),
    ],
)
def test_receptive_field_by_hand(network: nn.Module, radius: int) -> None:
    assert receptive_field(network) == radius


def test_receptive_field_at_lower_resolution() -> None:
    network = chain(nn.Conv2d(3, 4, 2, stride=2), conv(4, 4, 3), nn.Upsample(scale_factor=2), conv(4, 3, 1))
    network.size_divisor = 2  # type: ignore[assignment]
    # One position at half resolution next to the block of two pixels.
    assert receptive_field(network) == 2


def test_skips_past_a_normalisation_have_halos_of_their_own() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.norm = conv(3, 3, 5), conv(3, 3, 3), InstanceNorm(3)
            self.last = conv(3, 3, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(x + self.norm(self.branch(x)))

    network = Residual().eval()
    assert receptive_field(network) == 3  # of first and branch; not also that of last
    images = noise(1, 3, 64, 80)
    with torch.no_grad():
        assert (tiled(network, images, 32) - network(images)).abs().max() < 1e-5


# --- networks that cannot be tiled --------------------------------------------------------------------------


class Largest(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * x.amax((2, 3), keepdim=True)


class Positions(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.linspace(0, 1, x.shape[-1])


class Reader(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.abs().max().item()


class Marked(nn.Module):
    tileable = False

    def forward(self, x: Tensor) -> Tensor:
        return -x


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Largest(), "receptive field exceeds 512 pixels or is the"),
        (chain(conv(3, 4, 3), nn.InstanceNorm2d(4), conv(4, 3, 3)), "receptive field exceeds 512 pixels or is the"),
        (Positions(), "depends on its position"),
        (AnimeGANv2(width=0.125, upsample="bilinear_align"), "depends on its position"),
        (Reader(), "uses values of its activations in Python"),
        (Marked(), "an output pixel depends on the whole image"),
        (chain(nn.Conv2d(3, 4, 3, padding=2), LayerNorm(4), nn.Conv2d(4, 3, 3)), "has a map of 130 positions"),
        (chain(nn.Conv2d(3, 3, 2, stride=2)), "has a map of 64 positions"),
    ],
)
def test_what_cannot_be_tiled_runs_whole_and_says_why(network: nn.Module, why: str) -> None:
    network.eval()
    images = noise(1, 3, 64, 96)
    with torch.no_grad():
        whole = network(images)
    with pytest.warns(UserWarning, match=f"not split into tiles: .*{why}"):
        result = tiled(network, images, 48)
    assert torch.equal(result, whole)
    with pytest.raises(TilingError, match=why):
        halo_of(network)


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

    with pytest.warns(UserWarning, match="cannot be traced"):
        assert tiled(Fails().eval(), noise(1, 3, 64, 96), 48).shape == (1, 3, 64, 96)
    with pytest.raises(RuntimeError, match="shape"):
        tiled(Fails().eval(), noise(1, 3, 64, 64), 0)


@contextmanager
def two_threads() -> Iterator[None]:
    """Give torch two threads, and check that it has them at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["animegan v2", "animegan v1, tf1 resizing"])
def test_one_tile_per_core(name: str) -> None:
    network = NETWORKS[name]().eval()
    images = noise(1, 3, 96, 136)
    with torch.no_grad():
        whole = network(images)
    halo_of(network)  # kept: measured by one thread, it does not wait for a core that another process has
    with two_threads():
        first, again = tiled(network, images, 48), tiled(network, images, 48)
    assert (first - whole).abs().max() < 1e-4
    assert torch.equal(first, again)  # whichever core takes which tile


def test_a_tile_that_fails_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network = AnimeGANv2(width=0.125).eval()
    halo_of(network)
    calls = []
    moments = Reduction.moments

    def fails(self: Reduction, x: Tensor) -> Any:
        calls.append(x)
        if len(calls) == 20:  # in the middle of the second segment of twelve tiles
            raise MemoryError("no more")
        return moments(self, x)

    monkeypatch.setattr(Reduction, "moments", fails)
    with two_threads(), pytest.raises(MemoryError, match="no more"):
        tiled(network, noise(1, 3, 96, 128), 32)
    assert len(calls) <= 24


# --- parts ------------------------------------------------------------------------------------------------------


def test_moments_of_parts_are_those_of_the_whole() -> None:
    # A mean far from zero: sums of squares in float32 would lose the variance (1 beside 10^8).
    x = torch.randn(2, 3, 20, 30, dtype=torch.float64) + 1e4
    whole = x.float()
    parts = [whole[..., :7, :], whole[..., 7:, :11], whole[..., 7:, 11:]]

    def combined(reduction: Reduction) -> Any:
        total = reduction.total()
        for part in parts:
            total.add(reduction.moments(part))
        return total.result(torch.float32)

    for groups, dims in ((3, (2, 3)), (1, (1, 2, 3))):
        mean, variance = combined(Reduction((2, 3, 4), groups=groups))
        exact = whole.double()
        assert torch.allclose(mean.squeeze().double(), exact.mean(dims).squeeze(), rtol=1e-7)
        assert torch.allclose(variance.squeeze().double(), exact.var(dims, correction=0).squeeze(), rtol=2e-3)
    assert torch.allclose(combined(Reduction((2, 3), keepdim=False)), whole.mean((2, 3)), rtol=1e-7)


@pytest.mark.parametrize(
    ("height", "width", "tile", "halo", "factor"),
    [(1080, 1920, 512, 8, 8), (100, 36, 32, 4, 4), (7, 31, 10, 3, 1)],
)
def test_cores_partition_and_windows_are_alike(height: int, width: int, tile: int, halo: int, factor: int) -> None:
    grid = Grid(height, width, tile, halo, factor)
    covered = torch.zeros(height, width)
    for core, window in zip(grid.cores, grid.windows, strict=True):
        core.of(covered, grid.image).add_(1)
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
    # Every window consists of parts of cores.
    for tile, window in enumerate(grid.windows):
        parts = torch.zeros(height, width)
        for source, box in grid.sources(tile):
            assert (box.top, box.left) >= (grid.cores[source].top, 0)
            box.of(parts, grid.image).add_(1)
        assert window.of(parts, grid.image).min() == parts.max() == 1
        assert parts.sum() == (window.bottom - window.top) * (window.right - window.left)
