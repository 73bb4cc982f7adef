import pytest
import torch

from animegen.errors import AnimegenError
from animegen.models.animegan import NeuralStyle, PixelOptimiser
from animegen.nn.features import FeatureExtractor

LAYERS = ["relu1_1", "relu2_1"]


def optimiser(**settings) -> PixelOptimiser:
    settings = {"style_size": 16, "content_layer": "relu2_2", "style_layers": LAYERS, "iterations": 3} | settings
    network = PixelOptimiser(**settings).eval()
    network.set_style(pictures(1, seed=9)[0])
    return network


def pictures(count: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_defaults_are_those_of_the_exercise():
    network = PixelOptimiser()
    assert (network.content_weight, network.style_weight) == (10, 40)
    assert (network.learning_rate, network.iterations) == (2, 200)
    assert network.layers == ["relu4_2", "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]


def test_cost_by_the_formulas_of_gatys():
    network = optimiser()
    photo, images = pictures(2), pictures(2, seed=1)
    extractor = FeatureExtractor("vgg19", "random")
    layers = ["relu2_2", *LAYERS]
    of_style, of_photo, of_images = (extractor(x, layers) for x in (network.style, photo, images))
    expected = []
    for b in range(2):
        scale = of_style["relu2_2"].square().mean().sqrt()
        difference = (of_images["relu2_2"][b] - of_photo["relu2_2"][b]) / scale
        content = (difference**2).sum() / (4 * difference.numel())
        style = 0.0
        for layer in LAYERS:
            scale = of_style[layer].square().mean().sqrt()
            ours, theirs = (x.flatten(1) / scale for x in (of_images[layer][b], of_style[layer][0]))
            squares = ((ours @ ours.T - theirs @ theirs.T) ** 2).sum()
            style += 0.5 * squares / (4 * ours.shape[0] ** 2 * ours.shape[1] ** 2)
        expected.append(10 * content + 40 * style)
    found = network.cost(images, *network._targets(photo))
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_optimising_lowers_the_cost_within_the_range():
    network = optimiser(iterations=12, noise=0.0)
    photo = pictures(1)
    targets = network._targets(photo)
    drawn = network(photo)
    assert drawn.abs().max() <= 1
    assert network.cost(drawn, *targets).item() < 0.8 * network.cost(photo, *targets).item()
    # Adam moves a pixel by about its learning rate per iteration, counted in levels of 255.
    one = optimiser(iterations=1, noise=0.0)
    moved = (one(0.5 * photo) - 0.5 * photo).abs() * 127.5
    assert moved.max().item() == pytest.approx(2, rel=0.01)


def test_every_image_is_optimised_by_itself_and_alike_each_time():
    network = optimiser()
    photos = pictures(2)
    together = network(photos)
    torch.testing.assert_close(together, torch.cat([network(photo[None]) for photo in photos]), atol=1e-3, rtol=0)
    assert torch.equal(network(photos), together)


def test_noise_is_mixed_in_at_the_initial():
    photo = pictures(1)
    start = optimiser(noise=0.6)._initial(photo)
    noise = (start - 0.4 * photo) / 0.6
    assert noise.abs().max() <= 20 / 127.5
    assert noise.std().item() == pytest.approx(20 / 127.5 / 3**0.5, rel=0.1)
    assert torch.equal(optimiser(noise=0.0)._initial(photo), photo)


def test_applications_without_gradients_still_optimise():
    network = optimiser().requires_grad_(False)
    photo = pictures(1)
    expected = network(photo)
    with torch.inference_mode():
        assert torch.equal(network(photo.clone()), expected)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        drawn = network(photo)
    assert torch.equal(drawn, expected)
    assert not drawn.requires_grad


def test_training_takes_the_first_still_once():
    model = NeuralStyle(PixelOptimiser(style_size=16, iterations=1), features=FeatureExtractor("vgg19", "random"))
    with pytest.raises(AnimegenError, match="no style image"):
        model.stylize(pictures(1))
    batches = [{"photo": pictures(2, seed=s), "anime": pictures(2, seed=s + 5)} for s in (0, 1)]
    for batch in batches:
        assert list(model.updates(batch)) == []
    assert torch.equal(model.generator.style, batches[0]["anime"][:1])
    other = NeuralStyle(PixelOptimiser(style_size=16, iterations=1))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.stylize(pictures(1))[0], model.stylize(pictures(1))[0])
    with pytest.raises(AnimegenError, match="style_size=20"):
        model.generator.set_style(pictures(1, 20)[0])


def test_any_size_is_drawn_and_the_preview_shows_the_style():
    model = NeuralStyle(optimiser(iterations=1))
    photo = pictures(1, 40)[..., :21]
    assert model.stylize(photo)[0].shape == photo.shape
    shown = model.preview({"photo": photo})
    assert list(shown) == ["photo", "style", "output"]
    assert shown["style"].shape == photo.shape
    small = pictures(1, 16)
    torch.testing.assert_close(model.preview({"photo": small})["style"], model.generator.style)


def test_pretrained_weights_come_from_the_features():
    features = FeatureExtractor("vgg19", "random")
    with torch.no_grad():
        features.network.features[0].weight.mul_(2)
    model = NeuralStyle(PixelOptimiser(style_size=16), features=features)
    model.load_pretrained()
    images = pictures(1)
    torch.testing.assert_close(model.generator.encoder(images, ["relu1_1"]), features(images, ["relu1_1"]))
    with pytest.raises(AnimegenError, match="features=vgg19"):
        NeuralStyle(PixelOptimiser(style_size=16)).load_pretrained()
