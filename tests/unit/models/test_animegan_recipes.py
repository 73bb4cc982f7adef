"""What the configurations of the family build, and what the discriminators get to see."""

import pytest
import torch

from animegen.config.instantiate import build as build_node
from animegen.errors import AnimegenError
from animegen.losses import LPIPS, PatchNCE
from animegen.models.animegan import Autoencoder
from animegen.models.animegan.networks import CartoonGAN, WhiteBoxUNet
from animegen.nn.colour import gray
from animegen.nn.discriminators import MultiscalePatchGAN, SNResNetPatch
from animegen.tasks.adversarial import joint_logits
from tests.support import composed


def build(*overrides: str) -> torch.nn.Module:
    return build_node(composed("size=tiny", *overrides)["model"], "model")


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1 for name in ("photo", "anime", "smooth")}


def judged(model: torch.nn.Module, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return what the discriminator sees in its own update."""
    seen: list[torch.Tensor] = []
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    name, evaluation = next(model.updates(data))
    assert name == "discriminator"
    evaluation.compute()
    assert len(seen) == 1
    return seen[0]


def test_cartoongans_discriminator_sees_coloured_smooth_pictures():
    model, data = build("model=animegan/cartoongan", "features=random"), batch()
    assert isinstance(model.generator, CartoonGAN)
    seen = judged(model, data)
    torch.testing.assert_close(seen[:2], data["anime"])
    torch.testing.assert_close(seen[4:], data["smooth"])
    objective = model.objectives["discriminator"]
    assert [objective.term(name).loss.kind for name in objective.terms] == ["vanilla"] * 3
    generator = model.objectives["generator"]
    assert {name: generator.term(name).weight for name in generator.terms} == {"adversarial": 1.0, "content": 10.0}


def test_animegans_discriminator_sees_gray_smooth_pictures():
    data = batch()
    seen = judged(build("model=animegan/whitebox", "features=random"), data)
    torch.testing.assert_close(seen[4:6], gray(data["anime"]))
    torch.testing.assert_close(seen[6:], gray(data["smooth"]))
    assert isinstance(build("model=animegan/whitebox").generator, WhiteBoxUNet)


def test_joint_logits_make_only_what_is_read():
    objective = build("model=animegan/paired", "features=random").objectives["discriminator"]
    made: list[str] = []

    def picture(name: str, value: float) -> torch.Tensor:
        made.append(name)
        return torch.full((1, 3, 2, 2), value)

    pictures = {
        name: (lambda n=name, v=v: picture(n, v))
        for v, name in enumerate(("fake_logits", "gray_logits", "real_logits"))
    }
    entries = joint_logits(objective, torch.nn.Identity(), pictures)
    found = entries["real_logits"]()
    assert made == ["fake_logits", "real_logits"]
    assert found["fake_logits"].unique().tolist() == [0]
    assert found["real_logits"].unique().tolist() == [2]


def test_paired_training_compares_with_the_true_drawing():
    model, data = build("model=animegan/paired", "data=paired/toonworld", "features=random"), batch()
    assert isinstance(model.discriminator, SNResNetPatch)
    with torch.no_grad():
        fake = model.generator(data["photo"])
    updates = dict(model.updates(data))
    _, values = updates["generator"].compute()
    torch.testing.assert_close(values["l1"], (fake - data["anime"]).abs().mean())
    assert set(values) == {"l1", "perceptual", "adversarial"}


def test_lpips_takes_the_place_of_feature_distances(monkeypatch):
    monkeypatch.setattr("animegen.nn.features._torchvision_file", _no_file)
    words = ("model=animegan/paired", "ablation=animegan/lpips", "features=random")
    with pytest.raises(AnimegenError, match="weights=random"):
        build(*words)
    terms = build(*words, "model.objectives.generator.lpips.loss.weights=random").objectives["generator"].terms
    assert "perceptual" not in terms
    assert isinstance(terms["lpips"].loss, LPIPS)


def _no_file(backbone: str) -> None:
    raise AnimegenError(f"no weights of {backbone}: take weights=random.")


def test_ablations_of_content_and_discriminator():
    model = build("model=animegan/v2", "ablation=animegan/patchnce", "features=random")
    term = model.objectives["generator"].term("content")
    assert isinstance(term.loss, PatchNCE)
    assert term.layers == ("content",)
    assert dict(term.reads) == {"image": "fake", "reference": "photo"}
    model = build("model=animegan/v2", "ablation=animegan/multiscale_discriminator")
    assert isinstance(model.discriminator, MultiscalePatchGAN)
    assert len(model.discriminator.parts) == 3


def test_autoencoder_adopts_the_features_when_training_begins():
    model = build("model=animegan/autoencoder", "features=random")
    assert isinstance(model, Autoencoder)
    with torch.no_grad():
        model.features.network.features[0].weight.mul_(3)
    model.load_pretrained()
    assert torch.equal(model.generator.encoder.network.features[0].weight, model.features.network.features[0].weight)
    updates = dict(model.updates(batch()))
    assert list(updates) == ["generator"]
    with pytest.raises(AnimegenError, match="features=vgg19"):
        build("model=animegan/autoencoder").load_pretrained()
    trained = build("model=animegan/autoencoder", "features=random", "model.generator.train_encoder=true")
    assert all(parameter.requires_grad for parameter in trained.generator.parameters())
