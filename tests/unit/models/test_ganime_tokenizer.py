"""The tokenizer: published sizes, codes there and back, and its adversary's adaptive weight."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from animegen.engine.objective import Objective
from animegen.errors import AnimegenError
from animegen.models.ganime.adaptive import AdaptiveEvaluation
from animegen.models.ganime.networks import NLayerPatchGAN, Tokenizer
from animegen.nn.quantizer import Quantizer


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def by_hand(
    channels: int, multipliers: list[int], blocks: int, attention: list[int], latent: int, dim: int
) -> tuple[int, int]:
    """Count encoder and decoder from the list of their layers, each with its 1x1 convolution at the codes."""

    def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
        return inputs * outputs * kernel * kernel + outputs

    def res(inputs: int, outputs: int) -> int:
        shortcut = conv(inputs, outputs, 1) if inputs != outputs else 0
        return 2 * inputs + conv(inputs, outputs) + 2 * outputs + conv(outputs, outputs) + shortcut

    def attend(width: int) -> int:
        return 2 * width + 4 * conv(width, width, 1)

    widths = [channels * multiplier for multiplier in multipliers]
    end = widths[-1]
    middle = 2 * res(end, end) + attend(end)
    encoder = conv(3, channels) + middle + 2 * end + conv(end, latent) + conv(latent, dim, 1)
    decoder = conv(dim, latent, 1) + conv(latent, end) + middle + 2 * widths[0] + conv(widths[0], 3)
    before = channels
    for level, width in enumerate(widths):
        for _ in range(blocks):
            encoder += res(before, width) + (attend(width) if level in attention else 0)
            before = width
        encoder += conv(width, width) if level + 1 < len(widths) else 0
    before = end
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(blocks + 1):
            decoder += res(before, width) + (attend(width) if level in attention else 0)
            before = width
        decoder += conv(width, width) if level else 0
    return encoder, decoder


# channels, multipliers, blocks, attention, latent, code dimension: million parameters of encoder and decoder.
PUBLISHED = {
    "GANime 64x128 and MovingMNIST": ((32, [2, 4, 8, 8], 1, [3], 512, 128), 7.3, 11.4, 8),
    "GANime 256x512 light": ((128, [1, 1, 2, 2, 4], 1, [], 256, 1024), 19.8, 31.9, 16),
    "GANime 256x512 larger": ((128, [1, 1, 2, 2, 2], 1, [], 256, 256), 8.6, 13.7, 16),
    "taming-transformers f16": ((128, [1, 1, 2, 2, 4], 2, [4], 256, 256), 29.4, 42.5, 16),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes(name: str) -> None:
    (channels, multipliers, blocks, attention, latent, dim), encoder, decoder, factor = PUBLISHED[name]
    settings = {"dim": dim, "codes": 16, "kmeans": False}
    with torch.device("meta"):
        network = Tokenizer(channels, multipliers, blocks, attention, latent, settings, "conv", "linear")
    found = count(network.encoder, network.to_codes), count(network.decoder, network.from_codes)
    assert found == by_hand(channels, multipliers, blocks, attention, latent, dim)
    assert [round(n / 1e6, 1) for n in found] == [encoder, decoder]
    assert network.size_divisor == factor


def test_the_published_discriminator() -> None:
    assert count(NLayerPatchGAN()) == 2_765_633
    assert count(NLayerPatchGAN(condition=3)) == 2_768_705
    assert NLayerPatchGAN(width=0.125)(torch.zeros(2, 3, 64, 128)).shape == (2, 1, 6, 14)
    with pytest.raises(AnimegenError, match="32 pixels"):
        NLayerPatchGAN(width=0.125)(torch.zeros(1, 3, 16, 64))


def small(**settings: Any) -> Tokenizer:
    torch.manual_seed(0)
    quantizer = {"dim": 8, "codes": 32, "kmeans": False, **settings.pop("quantizer", {})}
    given = {"channels": 16, "multipliers": [1, 2], "attention": [1], "latent": 16, "groups": 4, "patch": 2}
    return Tokenizer(**{**given, "quantizer": quantizer, **settings})


def pictures(count: int = 3, height: int = 16, width: int = 32) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("resample", ["conv", "bilinear", "nearest"])
@pytest.mark.parametrize(("patch", "output"), [(1, "linear"), (2, "tanh")])
def test_codes_there_and_back(resample: str, patch: int, output: str) -> None:
    network = small(resample=resample, patch=patch, output=output).eval()
    images = pictures()
    image, quantized, encoded = network(images)
    codes = network.encode(images)
    assert network.size_divisor == 2 * patch
    assert codes.shape == (3, 16 // network.size_divisor, 32 // network.size_divisor)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, quantized.codes)
    assert encoded.shape == (3, 8, *codes.shape[1:])
    torch.testing.assert_close(network.decode(codes), image.clamp(-1, 1))
    nearest = torch.cdist(encoded.flatten(2).transpose(1, 2), network.quantizer.inner.codebook).argmin(-1)
    assert torch.equal(codes.flatten(1), nearest)


@pytest.mark.parametrize("quantizer", [{}, {"cosine": True}, {"levels": [4, 4, 3]}, {"ema": False}])
def test_soft_images_of_certain_codes_are_the_images_of_the_codes(quantizer: dict[str, Any]) -> None:
    network = small(quantizer=quantizer).eval()
    codes = torch.randint(network.codes, (2, 4, 8), generator=torch.Generator().manual_seed(0))
    certain = nn.functional.one_hot(codes, network.codes).float().requires_grad_()
    soft = network.decode_soft(certain)
    torch.testing.assert_close(soft.clamp(-1, 1), network.decode(codes), atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(soft.square().mean(), certain)
    assert gradient.abs().min() > 0


def test_vectors_of_length_one_are_compared_by_direction() -> None:
    network = small(quantizer={"cosine": True})
    encoded = network(pictures()).encoded
    torch.testing.assert_close(encoded.norm(dim=1), torch.ones(3, 4, 8))


def test_half_precision_reaches_neither_the_codebook_nor_the_image() -> None:
    network = small()
    with torch.autocast("cpu", torch.bfloat16):
        image, quantized, encoded = network(pictures())
    assert (image.dtype, encoded.dtype) == (torch.float32, torch.bfloat16)
    assert network.quantizer.inner.codebook.dtype == torch.float32
    assert torch.equal(quantized.values, quantized.nearest)


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="Did you mean 'bilinear'"):
        small(resample="biliner")
    with pytest.raises(AnimegenError, match="output=sigmoid"):
        small(output="sigmoid")
    with pytest.raises(AnimegenError, match="from 0 to 1"):
        small(attention=[2])
    with pytest.raises(AnimegenError, match="one code per position"):
        small(quantizer={"residual": 2})
    with pytest.raises(AnimegenError, match="multiples of 4"):
        small()(pictures(1, 18, 32))


# --- the quantiser --------------------------------------------------------------------------------------------


def test_gradients_pass_the_codebook_unchanged() -> None:
    quantizer = Quantizer(4, 8, kmeans=False, reset=0.0)
    maps = torch.randn(2, 4, 3, 3, requires_grad=True)
    upstream = torch.randn(2, 4, 3, 3)
    (gradient,) = torch.autograd.grad(quantizer(maps).values, maps, upstream)
    torch.testing.assert_close(gradient, upstream)


def test_averages_move_as_computed_by_hand_and_revived_codes_begin_again() -> None:
    quantizer = Quantizer(1, 3, decay=0.75, kmeans=False, reset=0.9)
    book = quantizer.inner._codebook
    book.embed.copy_(torch.tensor([[[0.0], [1.0], [9.0]]]))
    book.embed_avg.copy_(book.embed)
    maps = torch.tensor([0.2, 0.0, 1.0, 1.2]).view(1, 1, 2, 2)
    codes = quantizer(maps).codes.flatten()
    assert codes.tolist() == [0, 0, 1, 1]
    # N = .75 * 1 + .25 * 2 = 1.25; m = .75 * e + .25 * sum; e = m / N, which smoothing by 1e-5 hardly changes.
    torch.testing.assert_close(book.embed[0, :2, 0], torch.tensor([0.05 / 1.25, 1.3 / 1.25]), atol=1e-4, rtol=0.0)
    # The third was chosen .75 < .9 times: it takes the place of a vector of the batch, with count and sum to match.
    assert book.embed[0, 2, 0].item() in maps.flatten().tolist()
    assert book.cluster_size[0].tolist() == pytest.approx([1.25, 1.25, 0.9])
    assert book.embed_avg[0, 2, 0].item() == pytest.approx(0.9 * book.embed[0, 2, 0].item())
    dead = quantizer.dead()
    assert dead is not None
    assert dead.item() == 1
    assert Quantizer(1, levels=[3, 3]).dead() is None


# --- the adaptive weight ------------------------------------------------------------------------------------------


class Times(nn.Module):
    """A loss that is linear in the image, so that its gradient is known."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x.sum()


def toy(slope: float, cap: float, ramp: int = 0) -> tuple[nn.Parameter, Tensor, list[float], Tensor]:
    """Balance a reconstruction of slope 3 with a game; return last layer, total, scales and what is encoded."""
    last = nn.Parameter(torch.tensor([2.0]))
    before = torch.tensor([5.0], requires_grad=True)
    image = last * before
    leaf = image.detach().requires_grad_()
    objective = Objective(
        l1={"weight": 2.0, "loss": Times(1.5), "reads": {"x": "fake"}},
        commitment={"weight": 1.0, "loss": Times(7.0), "reads": {"x": "encoded"}},
        adversarial={"weight": 0.5, "loss": Times(slope), "reads": {"x": "fake_logits"}, "ramp": ramp},
    )
    told: list[float] = []
    bound = objective(fake=leaf, encoded=before, fake_logits=lambda: leaf)
    total, _ = AdaptiveEvaluation(bound, image, leaf, last, cap, lambda scale: told.append(scale.item())).compute()
    return last, total, told, before


def test_the_adaptive_weight_is_the_quotient_of_the_gradients_at_the_last_layer() -> None:
    last, total, told, before = toy(slope=-6.0, cap=10.0)
    # At the last layer: 2 * 1.5 * 5 = 15 against |-6 * 5| = 30.
    scale = 15 / (30 + 1e-4)
    assert told == pytest.approx([scale])
    assert total.item() == pytest.approx(30 + 0.5 * scale * -60 + 35)
    total.backward()
    slope = 3 - 0.5 * scale * 6
    assert last.grad is not None
    assert before.grad is not None
    assert last.grad.item() == pytest.approx(5 * slope)
    assert before.grad.item() == pytest.approx(2 * slope + 7)  # through the image, and from the commitment


def test_a_saturated_discriminator_is_multiplied_up_no_further_than_the_cap() -> None:
    assert toy(slope=-1e-3, cap=10.0)[2] == [10.0]
    assert toy(slope=-1e-3, cap=10000.0)[2] == pytest.approx([15 / (5e-3 + 1e-4)])
    _, total, _, _ = toy(slope=-6.0, cap=10.0, ramp=4)  # a quarter of the weight in the first step of the ramp
    assert total.item() == pytest.approx(30 + 0.125 * 15 / 30 * -60 + 35, rel=1e-4)


def test_an_adaptive_weight_needs_two_sides() -> None:
    objective = Objective(adversarial={"loss": Times(1.0), "reads": {"x": "fake_logits"}})
    leaf = torch.ones(1, requires_grad=True)
    bound = objective(fake_logits=leaf)
    with pytest.raises(AnimegenError, match="adaptive_cap=null"):
        AdaptiveEvaluation(bound, leaf, leaf, nn.Parameter(torch.ones(1)), 10.0).compute()
