import lpips
import pytest
import torch

from animegen.errors import AnimegenError
from animegen.losses import LPIPS, FeatureL1, GramStyle, gram
from animegen.nn.features import FeatureExtractor


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_gram_by_hand():
    # Two channels of two pixels: (1, 2) and (0, 3); C*H*W = 4.
    features = torch.tensor([1.0, 2.0, 0.0, 3.0]).view(1, 2, 1, 2)
    torch.testing.assert_close(gram(features), torch.tensor([[[5.0, 6.0], [6.0, 9.0]]]) / 4)


def test_gram_keeps_images_apart():
    features = noise(3, 4, 5, 6)
    expected = torch.stack([f.flatten(1) @ f.flatten(1).T / (4 * 5 * 6) for f in features])
    torch.testing.assert_close(gram(features), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gram_of_large_features_is_finite_and_exact_under_autocast(dtype):
    # The plain sum over 64*64 pixels is 300^2 * 4096 = 3.7e8, far beyond float16's 65504.
    features = torch.full((1, 8, 64, 64), 300.0, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        result = gram(features)
        result.mean().backward()
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.full((1, 8, 8), 300.0**2 / 8), rtol=1e-5, atol=0)
    assert features.grad.isfinite().all()


def test_feature_l1_by_hand_and_mean_over_layers():
    image = {"a": torch.ones(2, 3, 4, 4), "b": torch.zeros(2, 5, 2, 2)}
    reference = {"a": torch.zeros(2, 3, 4, 4), "b": torch.full((2, 5, 2, 2), -4.0)}
    assert FeatureL1(["a"])(image, reference).item() == 1
    assert FeatureL1(["a", "b"])(image, reference).item() == 2.5
    assert FeatureL1().layers == ["content"]
    with pytest.raises(AnimegenError, match="FeatureL1 compares"):
        FeatureL1(["a"])(image, {"a": torch.zeros(1, 3, 4, 4)})


def test_gram_style_by_hand():
    image = {"style": torch.tensor([1.0, 2.0, 0.0, 3.0]).view(1, 2, 1, 2)}
    reference = {"style": torch.zeros(1, 2, 3, 3)}  # another size is fine
    assert GramStyle()(image, reference).item() == pytest.approx((5 + 6 + 6 + 9) / 4 / 4)


@pytest.mark.parametrize("loss", [FeatureL1(["x", "y"]), GramStyle(["x", "y"])])
def test_only_the_image_gets_a_gradient_and_batch_size_does_not_matter(loss):
    image = {"x": noise(2, 4, 6, 6).requires_grad_(), "y": noise(2, 8, 3, 3, seed=1)}
    reference = {"x": noise(2, 4, 6, 6, seed=2).requires_grad_(), "y": noise(2, 8, 3, 3, seed=3)}
    once = loss(image, reference)
    once.backward()
    assert image["x"].grad.abs().max() > 0
    assert reference["x"].grad is None

    def thrice(features):
        return {name: value.detach().repeat(3, 1, 1, 1) for name, value in features.items()}

    torch.testing.assert_close(loss(thrice(image), thrice(reference)), once.detach())
    assert loss(thrice(image), thrice(image)).item() == 0


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_equals_the_package(net):
    torch.manual_seed(0)
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
    ours = LPIPS(net, "random")
    # The package cuts the network in slices whose layers keep their number in torchvision's `features`.
    weights = ours.features.network.features.state_dict()
    theirs.net.load_state_dict({key: weights[key.split(".", 1)[1]] for key in theirs.net.state_dict()})
    image, reference = (noise(2, 3, 64, 64, seed=seed).clamp(-1, 1) for seed in (1, 2))
    expected = theirs(image, reference).flatten()
    torch.testing.assert_close(ours.distance(image, reference), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours(image, reference), expected.mean(), rtol=1e-4, atol=1e-6)
    assert ours.name == f"lpips_{net}_random"


def test_lpips_is_zero_for_equal_images_with_a_finite_gradient():
    loss = LPIPS("alex", "random")
    black = torch.full((1, 3, 64, 64), -1.0, requires_grad=True)
    value = loss(black, black.detach())
    value.backward()
    assert value.item() == 0
    assert black.grad.isfinite().all()
    with torch.no_grad():  # all features 0: the package's gradient is NaN here
        for parameter in loss.features.network.parameters():
            parameter.zero_()
    picture = noise(1, 3, 64, 64).requires_grad_()
    loss(picture, black.detach()).backward()
    assert picture.grad.isfinite().all()


def test_lpips_leaves_no_trace_in_the_checkpoint():
    loss = LPIPS("vgg", "random")
    assert list(loss.state_dict()) == []
    assert list(loss.parameters()) == []
    assert [loss.get_buffer(f"weight{n}").shape[1] for n in range(5)] == [64, 128, 256, 512, 512]
    with pytest.raises(AnimegenError, match="no net 'alexnet'"):
        LPIPS("alexnet", "random")


def test_feature_losses_through_an_extractor():
    extractor = FeatureExtractor("squeezenet1_1", "random")
    photo = noise(2, 3, 48, 48).clamp(-1, 1)
    fake = (photo + 0.1).requires_grad_()
    with torch.no_grad():
        target = extractor(photo, ["content", "style"])
    found = extractor(fake, ["content", "style"])
    (FeatureL1()(found, target) + GramStyle()(found, target)).backward()
    assert fake.grad.abs().max() > 0
