import pytest
import torch
from torch import nn

from animegen.errors import AnimegenError
from animegen.models.animegan.networks import (
    AnimeGANv3,
    AnimeGANv3Discriminator,
    AnimeGANv3DoubleTail,
    CartoonGAN,
    VGGAutoencoder,
    WhiteBoxUNet,
)
from animegen.models.animegan.networks.autoencoder import UpConv
from animegen.models.animegan.networks.cartoongan import TransposedConv
from animegen.models.animegan.networks.stored import StoredFeatures
from animegen.models.animegan.networks.v3 import ConvLADE
from animegen.nn.features import FeatureExtractor
from animegen.nn.filters import guided_filter
from animegen.nn.norm import LADE
from animegen.nn.spectral import SpectralNorm
from animegen.tiling.tiles import tiled

GENERATORS = [AnimeGANv3, AnimeGANv3DoubleTail, CartoonGAN, WhiteBoxUNet]


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (AnimeGANv3, 1_027_520),
        (AnimeGANv3DoubleTail, 1_557_792),
        (lambda: AnimeGANv3DoubleTail().support, 530_272),
        (AnimeGANv3Discriminator, 693_088),
        (CartoonGAN, 11_124_931),
        (lambda: CartoonGAN(upsample="bilinear"), 11_124_931),
        (WhiteBoxUNet, 1_467_075),
        (lambda: VGGAutoencoder().decoder, 826_387),
    ],
)
def test_parameter_counts_of_the_published_networks(build, count):
    assert parameters(build()) == count


@pytest.mark.parametrize("build", GENERATORS)
def test_output_has_the_shape_and_range_of_the_input(build):
    network = build(width=0.125).eval()
    for multiples in ((2, 2), (3, 5)):
        images = torch.randn(2, 3, *(network.size_divisor * n for n in multiples)).clamp(-1, 1)
        pictures = network(images)
        assert pictures.shape == images.shape
        assert pictures.abs().max() <= 1
        assert pictures.std() > 1e-3
    with pytest.raises(AnimegenError, match=f"multiples of {network.size_divisor}"):
        network(torch.zeros(1, 3, 40, 41))


@pytest.mark.parametrize("build", GENERATORS)
def test_images_of_a_batch_do_not_influence_each_other(build):
    network = build(width=0.125).train()
    images = torch.randn(3, 3, 32, 32).clamp(-1, 1)
    parts = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(network(images), parts, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("build", GENERATORS)
def test_every_parameter_is_trained(build):
    network = build(width=0.125)
    images = torch.randn(2, 3, 32, 32).clamp(-1, 1)
    outputs = network.both(images) if hasattr(network, "both") else [network(images)]
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("build", GENERATORS)
def test_bf16_stays_close_to_float32(build):
    network = build(width=0.125).eval()
    images = torch.randn(1, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        expected = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(images)
    assert half.dtype == torch.float32
    assert (half - expected).abs().mean() < 0.05


@pytest.mark.parametrize("build", [AnimeGANv3, WhiteBoxUNet])
def test_tiles_give_the_result_of_the_whole_image(build, recwarn):
    network = build(width=0.0625).eval()
    images = torch.rand(1, 3, 160, 192) * 2 - 1
    with torch.no_grad():
        whole = network(images)
    torch.testing.assert_close(tiled(network, images, tile=96), whole, atol=1e-3, rtol=0)
    assert not [warning for warning in recwarn if "not cut into tiles" in str(warning.message)]


def test_v3_applies_base_and_main_tail_alone():
    network = AnimeGANv3DoubleTail(width=0.125)
    images = torch.randn(1, 3, 32, 32).clamp(-1, 1)
    support, main = network.both(images)
    assert torch.equal(network(images), main)
    assert not torch.equal(support, main)
    applied = AnimeGANv3(width=0.125)
    applied.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("support.")})
    assert torch.equal(applied(images), main)


def test_v3_pads_strided_convolutions_on_top_and_left():
    block = ConvLADE(1, 8, stride=2)
    block.norm = nn.Identity()
    with torch.no_grad():
        block.conv.weight.zero_()
        block.conv.weight[:, :, 0, 0] = 1  # copies the pixel above on the left
    x = torch.arange(16.0).view(1, 1, 4, 4)
    padded = nn.functional.pad(x, (1, 0, 1, 0), mode="reflect")
    torch.testing.assert_close(block(x)[:, :1], padded[..., :4:2, :4:2])
    assert ConvLADE(3, 8, 7).conv.border == (3, 3, 3, 3)


def test_v3_discriminator_normalises_every_convolution_spectrally():
    network = AnimeGANv3Discriminator(width=0.125)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 8 + 6
    assert sum(isinstance(module, SpectralNorm) for module in network.modules()) == len(convolutions)
    assert sum(isinstance(module, LADE) for module in network.modules()) == 6
    network.eval()
    batches = [torch.randn(2, 3, 32, 40) for _ in range(2)]
    joined = network(torch.cat(batches))
    assert joined.shape == (4, 1, 4, 5)
    torch.testing.assert_close(joined, torch.cat([network(batch) for batch in batches]), atol=1e-5, rtol=1e-4)


def test_cartoongan_upsampling():
    layer = TransposedConv(4, 8)
    assert layer(torch.randn(1, 4, 5, 6)).shape == (1, 8, 10, 12)
    kinds = [type(module).__name__ for module in CartoonGAN(width=0.125, upsample="nearest").modules()]
    assert "TransposedConv" not in kinds
    assert kinds.count("Upsample") == 2
    assert [type(m).__name__ for m in CartoonGAN(width=0.125).modules()].count("TransposedConv") == 2


def test_whitebox_filters_its_output_with_the_photo_as_guide():
    images = torch.randn(1, 3, 16, 16).clamp(-1, 1)
    network, plain = WhiteBoxUNet(width=0.125), WhiteBoxUNet(width=0.125, radius=0)
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(network(images), guided_filter(plain(images), images, 1, 5e-3))


def test_upconv_order():
    block = UpConv(3, 8)
    assert parameters(block) == 3 * 4 * 10 + (12 + 1) * 8 + 9 * 8
    x = torch.randn(1, 3, 4, 4)
    wide = block.depthwise(x.repeat_interleave(2, -1).repeat_interleave(2, -2))
    y = nn.functional.leaky_relu(nn.functional.instance_norm(block.pointwise(wide)), 0.2)
    y = nn.functional.leaky_relu(nn.functional.instance_norm(block.mix(y)), 0.2)
    torch.testing.assert_close(block(x), y, atol=1e-5, rtol=1e-5)


def test_autoencoder_is_built_on_the_features_it_adopts():
    network = VGGAutoencoder(width=0.125)
    features = FeatureExtractor("vgg19", "random")
    with torch.no_grad():
        features.network.features[0].weight.mul_(2)
    network.load_pretrained(features)
    images = torch.randn(2, 3, 64, 32).clamp(-1, 1)
    deepest = features(images, ["relu5_4"])["relu5_4"]
    expected = network.decoder(nn.functional.max_pool2d(deepest, 2))
    output = network(images)
    assert output.shape == images.shape
    torch.testing.assert_close(output, expected)
    output.mean().backward()
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is not None for parameter in network.decoder.parameters())
    assert any(key.startswith("encoder.") for key in network.state_dict())
    with pytest.raises(AnimegenError, match="multiples of 32, not 40x32"):
        network(images[..., :40, :])
    with pytest.raises(AnimegenError, match="needs features=vgg19"):
        VGGAutoencoder("alexnet")


def test_a_trainable_encoder_gets_gradients():
    network = VGGAutoencoder(train_encoder=True, width=0.125)
    network(torch.randn(1, 3, 32, 64)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


def test_stored_features_say_what_is_missing():
    stored = StoredFeatures("squeezenet1_1")
    assert stored.backbone == "squeezenet1_1"
    with pytest.raises(AnimegenError, match="features=vgg19"):
        stored.load_pretrained(None)
    with pytest.raises(AnimegenError, match="backbone=alexnet"):
        stored.load_pretrained(FeatureExtractor("alexnet", "random"))
    images = torch.randn(1, 3, 48, 48)
    own = FeatureExtractor("squeezenet1_1", "random")
    assert torch.equal(stored(images, ["content"])["content"], own(images, ["content"])["content"])
