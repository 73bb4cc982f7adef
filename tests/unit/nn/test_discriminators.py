import copy

import pytest
import torch
from torch import nn

from animegen.nn.discriminators import PatchGAN
from animegen.nn.spectral import SpectralNorm, spectral_norm


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("norm", ["instance", "layer"])
def test_parameter_count_of_the_published_discriminator(norm):
    assert parameters(PatchGAN(norm=norm)) == 1_128_800


def test_options_change_the_network():
    published = PatchGAN(spectral_norm=False)
    assert parameters(PatchGAN(norm=None)) == 1_128_800 - 2 * (128 + 256 + 256)
    assert not any(isinstance(module, SpectralNorm) for module in published.modules())
    assert sum(isinstance(module, SpectralNorm) for module in PatchGAN().modules()) == 7
    dropped = [module for module in PatchGAN(dropout=0.2).modules() if isinstance(module, nn.Dropout2d)]
    assert [module.p for module in dropped] == [0.2] * 5
    assert PatchGAN(width=0.25).layers.first.out_channels == 8
    assert published.layers.first.weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(("downs", "size"), [(1, (20, 16)), (2, (10, 8)), (3, (5, 4))])
def test_logits_have_the_size_of_the_patches(downs, size):
    network = PatchGAN(downs=downs, width=0.125)
    assert network.size_divisor == 2**downs
    assert network(torch.zeros(2, 3, 40, 32)).shape == (2, 1, *size)


def test_receptive_field_is_37_pixels():
    network = PatchGAN(width=0.125, norm=None)
    images = torch.zeros(1, 3, 96, 96, requires_grad=True)
    network(images)[0, 0, 12, 12].backward()
    touched = images.grad.abs().sum((0, 1))
    assert [(touched.sum(dim) > 0).sum().item() for dim in (0, 1)] == [37, 37]


@pytest.mark.parametrize("norm", ["instance", "layer", "lade"])
@pytest.mark.parametrize("training", [True, False])
def test_joined_batches_equal_separate_ones(norm, training):
    torch.manual_seed(0)
    network = PatchGAN(width=0.25, norm=norm).train(training)
    batches = [torch.randn(2, 3, 32, 24) for _ in range(4)]
    joined = copy.deepcopy(network)(torch.cat(batches)).chunk(4)
    for together, batch in zip(joined, batches, strict=True):
        # A copy each: in training every forward pass advances the power iteration.
        torch.testing.assert_close(together, copy.deepcopy(network)(batch), atol=1e-5, rtol=1e-5)


def test_spectral_norm_gives_a_largest_singular_value_of_one():
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3)
    with torch.no_grad():
        conv.weight.mul_(7)
    original = conv.weight.detach().clone()
    spectral_norm(conv).train()
    for _ in range(60):
        weight = conv.weight.detach()
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(
        weight, original / torch.linalg.matrix_norm(original.flatten(1), 2), atol=1e-4, rtol=1e-3
    )


def test_spectral_norm_iterates_in_training_only_and_keeps_full_precision():
    conv = spectral_norm(nn.Conv2d(4, 8, 3))
    conv.eval()
    before = conv.state_dict()["parametrizations.weight.0.u"].clone()
    still = conv.weight
    assert torch.equal(conv.state_dict()["parametrizations.weight.0.u"], before)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv.weight, still)
        assert conv(torch.randn(1, 4, 8, 8)).dtype == torch.bfloat16
    with torch.no_grad():
        conv.parametrizations.weight.original.normal_()
    conv.train()
    conv.weight  # noqa: B018 - reading it iterates
    assert not torch.equal(conv.state_dict()["parametrizations.weight.0.u"], before)


def test_spectral_norm_survives_two_forward_passes_before_one_backward():
    torch.manual_seed(0)
    conv = spectral_norm(nn.Conv2d(3, 4, 3))
    x = torch.randn(2, 3, 8, 8)
    (conv(x).mean() - conv(2 * x).mean()).backward()
    gradient = conv.parametrizations.weight.original.grad
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


def test_gradient_of_spectral_norm_against_torchs():
    torch.manual_seed(0)
    ours = spectral_norm(nn.Conv2d(3, 6, 3, bias=False))
    theirs = nn.Conv2d(3, 6, 3, bias=False)
    with torch.no_grad():
        theirs.weight.copy_(ours.parametrizations.weight.original)
    theirs = torch.nn.utils.parametrizations.spectral_norm(theirs, n_power_iterations=50)
    x = torch.randn(1, 3, 6, 6)
    for _ in range(100):
        ours.weight  # noqa: B018 - reading it iterates
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    torch.testing.assert_close(
        ours.parametrizations.weight.original.grad,
        theirs.parametrizations.weight.original.grad,
        atol=1e-3,
        rtol=1e-3,
    )
