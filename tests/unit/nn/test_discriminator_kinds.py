import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from animegen.errors import AnimegenError
from animegen.nn.discriminators import MultiscalePatchGAN, PatchGAN, SNResNetPatch
from animegen.nn.spectral import SpectralNorm


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_cartoongans_discriminator_is_the_patchgan_with_biases():
    network = PatchGAN(bias=True, spectral_norm=False)
    assert parameters(network) == 1_128_800 + 32 + 64 + 128 + 128 + 256 + 256 + 1
    assert all(module.bias is not None for module in network.modules() if isinstance(module, nn.Conv2d))


def test_multiscale_has_a_patchgan_per_scale():
    assert parameters(MultiscalePatchGAN(scales=3)) == 3 * 1_128_800
    network = MultiscalePatchGAN(scales=2, width=0.125, norm="layer")
    assert network.size_divisor == 8
    images = torch.randn(2, 3, 32, 48)
    logits = network.eval()(images)
    assert logits.shape == (2, 2, 8, 12)
    fine, coarse = network.parts
    torch.testing.assert_close(logits[:, :1], fine(images))
    halved = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
    expected = coarse(halved)
    torch.testing.assert_close(logits[:, 1:, ::2, ::2], expected)
    # all scales weigh alike in a mean over everything
    torch.testing.assert_close(logits.mean(), (fine(images).mean() + expected.mean()) / 2)


@pytest.mark.parametrize("side", [32, 37])
@pytest.mark.parametrize(
    "build", [lambda: MultiscalePatchGAN(scales=3, width=0.125), lambda: SNResNetPatch(width=0.125)]
)
def test_any_size_and_joined_batches(build, side):
    network = build().eval()
    first, second = torch.randn(2, 3, side, 40), torch.randn(1, 3, side, 40)
    together = network(torch.cat([first, second]))
    torch.testing.assert_close(together, torch.cat([network(first), network(second)]), atol=1e-5, rtol=1e-4)


def test_residual_discriminator_as_specified():
    network = SNResNetPatch()
    blocks = (
        (3 * 64 + 64 * 64) * 9 + 3 * 64 + 2 * 64,
        (64 * 128 + 128 * 128) * 9 + 64 * 128 + 2 * 128,
        (128 * 256 + 256 * 256) * 9 + 128 * 256 + 2 * 256,
        (256 * 512 + 512 * 512) * 9 + 256 * 512 + 2 * 512,
        2 * 512 * 512 * 9 + 2 * 512,
    )
    attention = 2 * 256 * 32 + 2 * 256 * 128 + 1
    assert parameters(network) == sum(blocks) + attention + 512 * 9 + 1 == 9_663_746
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert sum(isinstance(module, SpectralNorm) for module in network.modules()) == len(convolutions) == 19
    assert parameters(SNResNetPatch(attention=False)) == 9_663_746 - attention


def test_residual_discriminator_halves_four_times():
    network = SNResNetPatch(width=0.125).eval()
    assert network(torch.randn(2, 3, 64, 32)).shape == (2, 1, 4, 2)
    block = network.layers[1]
    x = torch.randn(1, 8, 8, 8)
    y = block.conv2(F.leaky_relu(block.conv1(F.leaky_relu(x, 0.2)), 0.2))
    torch.testing.assert_close(block(x), F.avg_pool2d(y + block.shortcut(x), 2))
    first = network.layers[0]
    x = torch.randn(1, 3, 8, 8)
    y = first.conv2(F.leaky_relu(first.conv1(x), 0.2))  # no activation before the image is read
    torch.testing.assert_close(first(x), F.avg_pool2d(y + first.shortcut(x), 2))


def test_a_condition_is_judged_together_with_the_image():
    network = SNResNetPatch(condition=7, width=0.125).eval()
    images, condition = torch.randn(2, 3, 32, 32), torch.randn(2, 7, 32, 32)
    logits = network(images, condition)
    assert logits.shape == (2, 1, 2, 2)
    assert not torch.equal(logits, network(images, condition.flip(0)))
    with pytest.raises(AnimegenError, match="condition of 7 channels, not 0"):
        network(images)
    with pytest.raises(AnimegenError, match="condition of 0 channels, not 7"):
        SNResNetPatch(width=0.125)(images, condition)


def test_every_parameter_of_the_residual_discriminator_is_trained():
    network = SNResNetPatch(width=0.125)
    nn.init.ones_(network.layers[3].gain)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert copy.deepcopy(network).state_dict().keys() == network.state_dict().keys()
