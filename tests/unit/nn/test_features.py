import urllib.error
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from animegen.errors import AnimegenError
from animegen.nn import features as module_under_test
from animegen.nn.features import BACKBONES, FeatureExtractor

CHANNELS = {
    "vgg19": {"conv1_1": 64, "relu2_2": 128, "conv3_4": 256, "conv4_4": 512},
    "vgg16": {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "conv4_3": 512},
    "squeezenet1_1": {"conv1": 64, "fire2": 128, "fire5": 256, "fire9": 512},
    "alexnet": {"conv1": 64, "relu2": 192, "conv3": 384, "relu5": 256},
}


@pytest.fixture(scope="module")
def extractors():
    return {backbone: FeatureExtractor(backbone, "random") for backbone in BACKBONES}


@pytest.fixture(scope="module")
def images():
    coarse = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(coarse, size=72, mode="bilinear")


def squeezenet(seed):
    torch.manual_seed(seed)
    return torchvision.models.squeezenet1_1(weights=None).eval()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layers_have_their_names_and_channels(backbone, extractors, images):
    found = extractors[backbone](images, list(CHANNELS[backbone]))
    assert {name: value.shape[1] for name, value in found.items()} == CHANNELS[backbone]
    assert list(found) == list(CHANNELS[backbone])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_random_features_neither_fade_nor_explode(backbone, extractors, images):
    extractor = extractors[backbone]
    for name, value in extractor(images, extractor.layers).items():
        assert 0.4 < value.square().mean().sqrt() < 4, name


def test_random_features_are_always_the_same_and_leave_the_random_numbers_alone(extractors, images, monkeypatch):
    monkeypatch.setattr(module_under_test, "_random_state", module_under_test._random_state.__wrapped__)
    state = torch.random.get_rng_state()
    again = FeatureExtractor("alexnet", "random")
    assert torch.equal(state, torch.random.get_rng_state())
    first, second = (net(images, ["relu5"])["relu5"] for net in (extractors["alexnet"], again))
    assert torch.equal(first, second)
    assert again.name == "alexnet_random"


def test_aliases(extractors, images):
    found = extractors["vgg19"](images, ["content", "style", "conv4_4"])
    assert list(found) == ["content", "style", "conv4_4"]
    assert found["content"] is found["conv4_4"]
    for extractor in extractors.values():
        # The content layer of all but AlexNet has 1/8 of the size (+-1 where convolutions do not pad).
        side = extractor(images, ["content"])["content"].shape[-1]
        assert side in ((3,) if extractor.backbone == "alexnet" else (8, 9))


def test_vgg_layers_are_those_of_torchvision(extractors, images):
    """conv4_4 is features[25]; before-ReLU values stay as they were although the ReLU follows."""
    extractor = extractors["vgg19"]
    found = extractor(images, ["conv1_1", "relu1_1", "conv4_4", "relu4_4"])
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x = ((images + 1) / 2 - mean) / deviation
    layers = list(extractor.network.features)
    torch.testing.assert_close(found["conv1_1"], layers[0](x), atol=1e-5, rtol=1e-4)
    for layer in layers[:26]:
        x = layer(x)
    torch.testing.assert_close(found["conv4_4"], x, atol=1e-4, rtol=1e-4)
    assert found["conv1_1"].min() < 0
    assert found["conv4_4"].min() < 0
    assert torch.equal(found["relu4_4"], found["conv4_4"].relu())


def test_the_pass_ends_at_the_deepest_layer(extractors, images):
    extractor = extractors["vgg16"]
    ran = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(extractor.network.features)
    ]
    extractor(images, ["relu1_1", "relu2_1"])
    for hook in hooks:
        hook.remove()
    assert max(ran) == 6


def test_frozen_and_absent_from_the_model_around(extractors, images):
    extractor = FeatureExtractor("squeezenet1_1", "random")
    model = nn.Sequential(nn.Conv2d(3, 3, 1), extractor)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert len(list(model.parameters())) == 2
    assert list(model.buffers()) == []
    model.load_state_dict(model.state_dict(), strict=True)
    model.train()
    assert not extractor.training
    assert not extractor.network.training
    picture = images.clone().requires_grad_()
    extractor(picture, ["fire2"])["fire2"].mean().backward()
    assert picture.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in extractor.network.parameters())
    model.double()
    assert extractor(images.double(), ["fire2"])["fire2"].dtype == torch.float64


def test_weights_from_a_file(tmp_path, images):
    network = squeezenet(1)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    standardised = ((images + 1) / 2 - mean) / deviation
    expected = network.features(standardised).detach()
    whole, bare = tmp_path / "whole.pth", tmp_path / "bare.pth"
    torch.save(network.state_dict(), whole)
    torch.save(network.features.state_dict(), bare)
    for path in (whole, bare):
        extractor = FeatureExtractor("squeezenet1_1", str(path))
        torch.testing.assert_close(extractor(images, ["fire9"])["fire9"], expected, atol=1e-5, rtol=1e-4)
        assert extractor.name == "squeezenet1_1_file"


def test_weights_from_the_cache_of_torchvision(tmp_path, monkeypatch, images):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = Path(torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url).name
    (tmp_path / "checkpoints").mkdir()
    network = squeezenet(2)
    torch.save(network.state_dict(), tmp_path / "checkpoints" / name)
    extractor = FeatureExtractor("squeezenet1_1")
    assert extractor.name == "squeezenet1_1"
    weight = extractor.network.features[0].weight
    assert torch.equal(weight, network.features[0].weight)


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), TimeoutError("timed out"), RuntimeError("hash")])
def test_without_the_network_the_error_names_the_remedies(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        assert module_under_test.socket.getdefaulttimeout() == 20
        raise error

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    before = module_under_test.socket.getdefaulttimeout()
    with pytest.raises(
        AnimegenError, match=r"alexnet.*could not be downloaded.*features.weights=<file>.*squeezenet1_1.random.none"
    ):
        FeatureExtractor("alexnet")
    assert module_under_test.socket.getdefaulttimeout() == before


def test_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(AnimegenError, match=r"no file '.*none\.pth'"):
        FeatureExtractor("alexnet", str(tmp_path / "none.pth"))
    good = tmp_path / "squeezenet.pth"
    torch.save(squeezenet(3).features.state_dict(), good)
    with pytest.raises(AnimegenError, match=r"squeezenet\.pth' does not fit alexnet: it lacks 'features\.10\.bias'"):
        FeatureExtractor("alexnet", str(good))
    cut = tmp_path / "cut.pth"
    cut.write_bytes(good.read_bytes()[:5000])
    with pytest.raises(AnimegenError, match=r"cut\.pth.*cannot be read as weights of"):
        FeatureExtractor("squeezenet1_1", str(cut))
    shaped = squeezenet(3).features.state_dict()
    shaped["0.weight"] = torch.zeros(64, 3, 5, 5)
    torch.save(shaped, tmp_path / "shape.pth")
    with pytest.raises(AnimegenError, match=r"wrong shape for 'features\.0\.weight'"):
        FeatureExtractor("squeezenet1_1", str(tmp_path / "shape.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(AnimegenError, match="no state dict"):
        FeatureExtractor("squeezenet1_1", str(tmp_path / "list.pth"))


def test_unknown_names_are_named_with_the_nearest(extractors, images):
    with pytest.raises(AnimegenError, match=r"no feature backbone 'vgg18'.*'vgg1[69]'"):
        FeatureExtractor("vgg18", "random")
    with pytest.raises(AnimegenError, match=r"no layer 'conv44'.*'conv4_4'"):
        extractors["vgg19"](images, ["conv44"])
