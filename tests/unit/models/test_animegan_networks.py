import pytest
import torch

from animegen.errors import AnimegenError
from animegen.models.animegan.networks import (
    AnimeGANv1,
    AnimeGANv2,
    AnimeGANv2Lite,
    AnimeGANv2LitePlain,
    OutputActivation,
)
from animegen.models.animegan.networks.v1 import DualDownsample, InvertedResidual
from animegen.models.animegan.networks.v2 import Bottleneck
from animegen.nn.norm import LADE, InstanceNorm, LayerNorm

GENERATORS = [AnimeGANv1, AnimeGANv2, AnimeGANv2Lite, AnimeGANv2LitePlain]


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (AnimeGANv1, 3_956_096),
        (lambda: AnimeGANv1(blocks=4), 2_878_848),
        (lambda: AnimeGANv1(blocks=1), 3_956_096 - 7 * 269_312),
        (AnimeGANv2, 2_143_552),
        (AnimeGANv2Lite, 698_240),
        (AnimeGANv2LitePlain, 962_368),
    ],
)
def test_parameter_counts_of_the_published_generators(build, count):
    network = build()
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert sum(parameter.numel() for parameter in network.state_dict().values()) == count


@pytest.mark.parametrize("build", GENERATORS)
@pytest.mark.parametrize("norm", ["instance", "layer", "lade", None])
def test_output_has_the_shape_and_range_of_the_input(build, norm):
    network = build(width=0.125, norm=norm)
    for multiples in ((2, 2), (3, 5)):
        images = torch.randn(2, 3, *(network.size_divisor * n for n in multiples)).clamp(-1, 1)
        pictures = network(images)
        assert pictures.shape == images.shape
        assert pictures.abs().max() <= 1
        assert pictures.std() > 1e-3


@pytest.mark.parametrize("build", GENERATORS)
def test_sizes_that_do_not_fit_are_named(build):
    network = build(width=0.125)
    side = 5 * network.size_divisor
    with pytest.raises(AnimegenError, match=f"multiples of {network.size_divisor}.*not {side}x{side + 1}"):
        network(torch.zeros(1, 3, side, side + 1))


@pytest.mark.parametrize("build", GENERATORS)
@pytest.mark.parametrize("upsample", ["bilinear_align", "nearest", "tf1", "pixelshuffle"])
def test_upsampling_modes(build, upsample):
    network = build(width=0.125, upsample=upsample)
    images = torch.randn(1, 3, 32, 48)
    assert network(images).shape == images.shape


@pytest.mark.parametrize("build", GENERATORS)
def test_every_parameter_is_trained(build):
    network = build(width=0.125)
    network(torch.randn(2, 3, 32, 32).clamp(-1, 1)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert network.to_rgb.weight.grad.abs().max() > 0


@pytest.mark.parametrize("build", GENERATORS)
def test_images_of_a_batch_do_not_influence_each_other(build):
    network = build(width=0.125).train()
    images = torch.randn(3, 3, 32, 32)
    parts = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), parts, atol=1e-4, rtol=1e-4)


def test_norms_are_those_of_the_paper():
    kinds = [{type(module) for module in build(width=0.125).modules()} for build in GENERATORS]
    assert InstanceNorm in kinds[0]
    assert LayerNorm not in kinds[0]
    for found in kinds[1:]:
        assert LayerNorm in found
        assert InstanceNorm not in found
    assert any(isinstance(module, LADE) for module in AnimeGANv2(width=0.125, norm="lade").modules())


def test_inverted_residual_adds_its_input_only_where_it_fits():
    block = InvertedResidual(8, 8)
    x = torch.randn(1, 8, 6, 6)
    torch.nn.init.zeros_(block.project_norm.weight)
    torch.testing.assert_close(block(x), x)
    wider = InvertedResidual(8, 16)
    torch.nn.init.zeros_(wider.project_norm.weight)
    assert wider(x).abs().max() == 0
    assert block.depthwise.weight.shape == (16, 1, 3, 3)
    assert block.depthwise.bias is None
    assert InvertedResidual(8, 8, depthwise_bias=True).depthwise.bias.shape == (16,)


def test_bottleneck_ends_linearly():
    block = Bottleneck(8, 4, "layer")
    x = torch.randn(1, 8, 6, 6)
    torch.nn.init.zeros_(block.layers[2].weight)
    torch.testing.assert_close(block(x), x)


def test_down_sums_a_strided_and_a_resized_branch():
    block = DualDownsample(4, 8, "instance", "bilinear")
    x = torch.randn(1, 4, 8, 12)
    resized = torch.nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear")
    torch.testing.assert_close(block(x), block.strided(x) + block.resized(resized), atol=1e-5, rtol=1e-5)


def test_output_activations_by_hand():
    x = torch.tensor([-2.0, 0.0, 0.5, 2.0])
    torch.testing.assert_close(OutputActivation("tanh")(x), torch.tanh(x))
    sigmoid = OutputActivation("sigmoid")(x)
    torch.testing.assert_close(sigmoid, 2 / (1 + torch.exp(-x)) - 1)
    assert OutputActivation("sigmoid")(torch.tensor([-50.0, 50.0])).tolist() == [-1, 1]
    linear = OutputActivation("linear")
    assert torch.equal(linear.train()(x), x)
    assert linear.eval()(x).tolist() == [-1.0, 0.0, 0.5, 1.0]
    assert OutputActivation("tanh")(x.bfloat16()).dtype == torch.float32
    with pytest.raises(AnimegenError, match=r"no generator output 'sigmoind'.*'sigmoid'"):
        OutputActivation("sigmoind")


def test_linear_output_of_a_generator_is_clamped_in_evaluation_only():
    network = AnimeGANv2Lite(width=0.125, output="linear")
    with torch.no_grad():
        network.to_rgb.weight.mul_(10)
    images = torch.randn(1, 3, 32, 32)
    assert network.train()(images).abs().max() > 1
    torch.testing.assert_close(network.eval()(images), network.train()(images).clamp(-1, 1))


@pytest.mark.parametrize("build", GENERATORS)
def test_channels_last_and_bf16_stay_close_to_float32(build):
    network = build(width=0.125)
    images = torch.randn(1, 3, 32, 32).clamp(-1, 1)
    expected = network(images)
    fast = network.to(memory_format=torch.channels_last)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(fast(last), expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        half = fast(last)
    assert half.dtype == torch.float32
    assert (half - expected).abs().mean() < 0.05
