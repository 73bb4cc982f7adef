"""Feature distances against the package `lpips`."""

from __future__ import annotations

from pathlib import Path

import lpips
import pytest
import torch

from animegen.errors import AnimegenError
from animegen.metrics.perceptual import LPIPSMetric, PerceptualDistance
from animegen.nn.features import FeatureExtractor


def copy_trunk(extractor: FeatureExtractor, network: torch.nn.Module) -> None:
    layers = extractor.network.get_submodule("features")
    for part in network.net.children():
        for number, layer in part.named_children():
            layer.load_state_dict(layers.get_submodule(number).state_dict())


def test_perceptual_distance_is_lpips_without_its_heads() -> None:
    extractor = FeatureExtractor("squeezenet1_1", "random")
    reference = lpips.LPIPS(net="squeeze", lpips=False, pnet_rand=True, verbose=False)
    copy_trunk(extractor, reference)
    a, b = torch.rand(3, 3, 64, 64) * 2 - 1, torch.rand(3, 3, 64, 64) * 2 - 1
    distance = PerceptualDistance(extractor)
    # The package sums the seven layers, we average them.
    torch.testing.assert_close(distance(a, b), reference(a, b).flatten() / 7, rtol=1e-3, atol=1e-5)
    assert distance(a, a).tolist() == [0, 0, 0]
    torch.testing.assert_close(distance(a, b), distance.between(distance.features(a), distance.features(b)))


def test_name_tells_network_and_weights() -> None:
    assert PerceptualDistance(FeatureExtractor("squeezenet1_1", "random")).name == "perceptual_squeezenet1_1_random"


def test_unit_vectors_bound_the_distance() -> None:
    distance = PerceptualDistance(FeatureExtractor("squeezenet1_1", "random"), layers=["fire2"])
    one, other = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    one[0, 0], other[0, 1] = 5, 3  # orthogonal at both positions: |a - b|^2 = 2
    assert distance.between({"fire2": one}, {"fire2": other}).item() == pytest.approx(2)
    other[0, :, 0, 0] = torch.tensor([0.1, 0])  # parallel at one of them
    assert distance.between({"fire2": one}, {"fire2": other}).item() == pytest.approx(1)


def test_lpips_equals_the_package(tmp_path: Path) -> None:
    trunk = FeatureExtractor("alexnet", "random")
    features = trunk.network.get_submodule("features").state_dict()
    path = tmp_path / "alexnet.pth"
    torch.save({f"features.{key}": value for key, value in features.items()}, path)
    state = torch.get_rng_state()
    metric = LPIPSMetric(str(path))
    assert torch.equal(torch.get_rng_state(), state)
    assert metric.name == "lpips_alex_file"
    assert not metric.state_dict()
    assert not list(metric.parameters())
    reference = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    copy_trunk(trunk, reference)
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(metric(a, b), reference(a, b).flatten())
    assert metric(a, b).min() > 0


def test_lpips_refuses_random_weights() -> None:
    with pytest.raises(AnimegenError, match="is not LPIPS"):
        LPIPSMetric("random")
