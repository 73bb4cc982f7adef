"""The networks of few-shot training: published sizes, and the fast path against the slow one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from animegen.errors import AnimegenError
from animegen.models.fewshot import fast
from animegen.models.fewshot.choice import KeyChoice
from animegen.models.fewshot.fast import FoldingSequential
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


def trained_statistics(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights other than those of the beginning, and switch to eval mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.running_mean, module.bias):
                nn.init.normal_(values, 0.1, 0.3)
            for values in (module.running_var, module.weight):
                nn.init.uniform_(values, 0.5, 2.0)
    return network.eval()


def layer_by_layer(network: FewShotGenerator, images: torch.Tensor) -> torch.Tensor:
    """Draw without strips, and without folding batch norms into convolutions."""

    def run(layers: nn.Module, x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = layer(x)
        return x

    full = run(network.conv0, images)
    half = run(network.conv1, full)
    quarter = x = run(network.conv2, half)
    for block in network.blocks:
        x = x + run(block.layers, x)
    x = run(network.up2, torch.cat([x, quarter], 1))
    x = run(network.up1, torch.cat([x, half], 1))
    return torch.tanh(network.conv12(network.smooth(network.conv11(torch.cat([x, full, images], 1)))))


@pytest.mark.parametrize("settings", [{"second_norm": True}, {"upsampling": "nearest"}, {"norm": "none", "last": "3"}])
def test_frames_in_strips_with_folded_norms_equal_the_plain_way(
    settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = trained_statistics(FewShotGenerator(width=0.25, blocks=2, **settings)).double()
    frame = torch.rand(2, 3, 76, 40, dtype=torch.float64) * 2 - 1
    seen = []
    monkeypatch.setattr(fast, "STRIP_PIXELS", 24 * 40)
    finish = network._finish
    monkeypatch.setattr(network, "_finish", lambda *maps: (seen.append(maps[2].shape[-2]), finish(*maps))[1])
    with torch.no_grad():
        torch.testing.assert_close(network(frame), layer_by_layer(network, frame), atol=1e-12, rtol=0)
    # Four strips of 18 to 20 rows, and 6 rows more wherever there is a neighbour.
    assert seen == [26, 30, 30, 26]


def test_the_choice_between_carried_keys_and_drawing_is_the_same_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    choice = trained_statistics(KeyChoice()).eval()
    nn.init.normal_(choice.scores.weight)
    images = torch.rand(1, 20, 92, 40) * 2 - 1
    whole = choice(*images.split([3, 3, 14], 1))
    monkeypatch.setattr(fast, "STRIP_PIXELS", 23 * 40)
    with torch.no_grad():
        strips = choice(*images.split([3, 3, 14], 1))
    torch.testing.assert_close(strips, whole.detach(), atol=1e-5, rtol=0)
    assert (strips - images[:, 3:6]).abs().mean() > 0.1, "not the drawing alone"


@pytest.mark.parametrize("settings", [{"norm": "instance"}, {"norm": "group"}, {"upsampling": "bilinear"}])
def test_what_looks_at_the_whole_frame_is_not_cut_into_strips(settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "STRIP_PIXELS", 16)
    network = FewShotGenerator(width=0.25, blocks=1, **settings).eval()
    frame = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(network(frame), layer_by_layer(network, frame), atol=1e-6, rtol=0)
    assert not network.streams


def test_a_norm_folded_into_its_convolution_gives_its_gradients() -> None:
    """In eval mode with gradients, as when a network is looked into; by hand: y = 3 * (2x + 1 - 5) / 4 + 7."""
    layers = FoldingSequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=1e-9)).eval()
    convolution, norm = layers
    for values, number in (
        (convolution.weight, 2.0),
        (convolution.bias, 1.0),
        (norm.running_mean, 5.0),
        (norm.running_var, 16.0),
        (norm.weight, 3.0),
        (norm.bias, 7.0),
    ):
        nn.init.constant_(values, number)
    x = torch.full((1, 1, 1, 1), 10.0, requires_grad=True)
    y = layers(x)
    y.backward()
    assert y.item() == pytest.approx(3 * (2 * 10 + 1 - 5) / 4 + 7)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(3 * 2 / 4)
    layers.train()
    two = layers(torch.tensor([[[[10.0, 12.0]]]]))  # in training their own mean and deviation count
    assert two.flatten().tolist() == pytest.approx([7 - 3, 7 + 3])


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
def test_variants_draw_images(settings: dict) -> None:
    output = FewShotGenerator(inputs=5, blocks=1, width=0.25, **settings)(torch.rand(2, 5, 24, 16))
    assert output.shape == (2, 3, 24, 16)
    assert output.abs().max() <= 1


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match=r"no norm 'bach': use .* Did you mean 'batch'"):
        FewShotGenerator(norm="bach")
    with pytest.raises(AnimegenError, match="6 filters, not 0, 3, 7 and 2"):
        FewShotGenerator(filters=[32, 64])
    with pytest.raises(AnimegenError, match=r"has 3 input channels.*model\.generator\.inputs=4"):
        FewShotGenerator(width=0.25, blocks=0)(torch.zeros(1, 4, 16, 16))
