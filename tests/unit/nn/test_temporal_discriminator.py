"""The discriminator of clips, and the two ways to bound it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from animegen.errors import AnimegenError
from animegen.nn.discriminators3d import TemporalPatchGAN
from animegen.nn.singular import clip_singular_values


def test_parameters_by_hand_and_shapes() -> None:
    with torch.device("meta"):
        network = TemporalPatchGAN(constraint="none")
    kernels = 48 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 16 * 512
    assert sum(p.numel() for p in network.parameters()) == kernels + 64 + 128 + 256 + 512 + 1 == 8_275_905
    logits = TemporalPatchGAN(width=0.125)(torch.rand(2, 4, 3, 64, 48))
    assert logits.shape == (2, 1, 4, 6, 4)
    assert TemporalPatchGAN(width=0.125, scales=2)(torch.rand(1, 5, 3, 64, 64)).shape == (1, 2, 5, 6, 6)


def test_a_logit_sees_70_pixels_of_9_frames() -> None:
    network = TemporalPatchGAN(constraint="none", width=0.125).double()
    clips = torch.rand(1, 13, 3, 160, 160, dtype=torch.double, requires_grad=True)
    network(clips)[0, 0, 6, 9, 9].backward()
    assert clips.grad is not None
    seen = clips.grad[0].abs().sum(1) > 0
    frames = seen.flatten(1).any(1)
    rows = seen.any(0).any(1)
    assert int(frames.sum()) == 9
    assert frames[2:11].all()
    assert int(rows.sum()) == 70


def test_samples_do_not_mix() -> None:
    network = TemporalPatchGAN(width=0.125).eval()
    clips = torch.rand(2, 3, 3, 32, 32)
    assert (network(clips)[:1] - network(clips[:1])).abs().max() < 1e-6


def test_it_may_stand_in_a_model_in_the_memory_order_of_images() -> None:
    clips = torch.rand(1, 3, 3, 32, 32)
    for constraint in ("sn", "none"):
        model = nn.ModuleDict({"clips": TemporalPatchGAN(constraint, width=0.125), "frames": nn.Conv2d(3, 4, 3)}).eval()
        before = model["clips"](clips)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert model["frames"].weight.is_contiguous(memory_format=torch.channels_last)
        assert (model["clips"](clips) - before).abs().max() < 1e-6
        assert model.double()["clips"](clips.double()).dtype == torch.float64


def test_clips_that_are_too_short_and_unknown_constraints_are_refused() -> None:
    with pytest.raises(AnimegenError, match="3 or more frames, not 2"):
        TemporalPatchGAN(width=0.125)(torch.rand(1, 2, 3, 32, 32))
    with pytest.raises(AnimegenError, match="constraint=spectral is unknown"):
        TemporalPatchGAN(constraint="spectral")
    with pytest.raises(AnimegenError, match="scales=1 or scales=2"):
        TemporalPatchGAN(scales=3)


def largest_singular_values(network: nn.Module) -> list[float]:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    return [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]


def test_clipping_bounds_every_layer_and_leaves_small_values_alone() -> None:
    network = TemporalPatchGAN("svc", width=0.125)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.5)
    assert max(largest_singular_values(network)) > 2
    network.clip()
    assert max(largest_singular_values(network)) <= 1 + 1e-4
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.diag(torch.tensor([3.0, 0.5]))
    clip_singular_values(nn.Sequential(layer))
    assert (layer.weight - torch.diag(torch.tensor([1.0, 0.5]))).abs().max() < 1e-6
    free = TemporalPatchGAN("none", width=0.125)
    before = [p.clone() for p in free.parameters()]
    free.clip()  # not asked for
    assert all(torch.equal(a, b) for a, b in zip(before, free.parameters(), strict=True))


def test_spectral_norm_is_within_five_percent_after_twenty_passes() -> None:
    torch.manual_seed(0)
    network = TemporalPatchGAN("sn", width=0.125)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(1, 3, 3, 32, 32))
    assert all(abs(value - 1) < 0.05 for value in largest_singular_values(network))
