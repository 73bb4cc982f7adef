"""The networks of few-shot training: published sizes, and the fast path against the slow one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from animegen.core.errors import AnimegenError
from animegen.models.fewshot.networks import FewShotGenerator, FoldedUpsampleConv, PatchDiscriminator


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("inputs", "blocks", "expected"), [(3, 7, 3_267_523), (6, 7, 3_281_635), (3, 4, 2_381_251)])
def test_the_generator_has_the_published_size(inputs: int, blocks: int, expected: int) -> None:
    assert count(FewShotGenerator(inputs, blocks=blocks)) == expected


def test_the_discriminator_has_the_published_size_and_logits() -> None:
    network = PatchDiscriminator()
    assert count(network) == 24_469
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 6, 6)


def test_the_discriminator_adds_noise_only_while_training() -> None:
    network, picture = PatchDiscriminator(noise=0.2), torch.zeros(1, 3, 32, 32)
    assert not torch.equal(network(picture), network(picture))
    network.eval()
    assert torch.equal(network(picture), network(picture))


def test_folding_changes_nothing() -> None:
    folded = FoldedUpsampleConv(5, 7)
    x = torch.randn(2, 5, 6, 9, dtype=torch.float64)
    folded.double()
    plain = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), folded.weight, padding=1)
    torch.testing.assert_close(folded(x), plain, atol=1e-12, rtol=0)


def test_the_folded_generator_equals_the_plain_one_with_the_same_weights() -> None:
    folded = FewShotGenerator(width=0.25, blocks=2).eval()
    plain = FewShotGenerator(width=0.25, blocks=2, upsampling="nearest").eval()
    plain.load_state_dict(folded.state_dict())
    x = torch.rand(2, 3, 36, 20) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(folded(x), plain(x), atol=1e-5, rtol=0)


def test_gradients_of_the_folded_convolution_are_those_of_the_plain_one() -> None:
    folded = FoldedUpsampleConv(2, 3)
    x = torch.randn(1, 2, 4, 4)
    folded(x).square().sum().backward()
    weight = folded.weight.detach().clone().requires_grad_()
    F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1).square().sum().backward()
    torch.testing.assert_close(folded.weight.grad, weight.grad, atol=1e-4, rtol=1e-5)


def test_a_value_sees_about_141_pixels() -> None:
    network = FewShotGenerator(width=0.25, norm="none").eval()
    picture = torch.zeros(1, 3, 240, 240, requires_grad=True)
    network(picture)[0, :, 120, 120].sum().backward()
    assert picture.grad is not None
    seen = picture.grad[0].abs().sum((0, 1)).nonzero()
    assert 140 <= int(seen.max() - seen.min()) + 1 <= 146


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "instance", "upsampling": "bilinear", "second_norm": True, "init": "normal"},
        {"norm": "group", "last": 5},
        {"norm": "none", "last": "3"},
        {"last": "separable", "filters": [32] * 6},
    ],
)
def test_variants_draw_pictures(settings: dict) -> None:
    output = FewShotGenerator(inputs=5, blocks=1, width=0.25, **settings)(torch.rand(2, 5, 24, 16))
    assert output.shape == (2, 3, 24, 16)
    assert output.abs().max() <= 1


def test_mistakes_are_told() -> None:
    with pytest.raises(AnimegenError, match=r"no norm 'bach': choose .* Did you mean 'batch'"):
        FewShotGenerator(norm="bach")
    with pytest.raises(AnimegenError, match="6 filters, not 3, 7 and 2"):
        FewShotGenerator(filters=[32, 64])
    with pytest.raises(AnimegenError, match=r"built for 3 input channels.*model\.generator\.inputs=4"):
        FewShotGenerator(width=0.25, blocks=0)(torch.zeros(1, 4, 16, 16))
