"""One step of AnimeGANv3's training: what is judged, what is a constant, who is trained."""

import pytest
import torch

from animegen.config.compose import compose_config
from animegen.config.instantiate import build as build_node
from animegen.engine.updater import trained_alone
from animegen.errors import AnimegenError
from animegen.models.animegan import DTGAN
from animegen.nn.colour import gray
from animegen.nn.filters import l0_smooth, self_guided
from tests.support import composed

NO_FEATURES = [
    f"~model.objectives.generator.{term}" for term in ("content", "main_content", "regions", "photo_regions")
]
NO_FEATURES += [f"~model.objectives.generator.{term}" for term in ("style", "style_fine", "style_middle")]


def build(*overrides: str) -> DTGAN:
    return build_node(composed("model=animegan/v3", "size=tiny", *NO_FEATURES, *overrides)["model"], "model")


def batch(size: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(2, 3, size, size, generator=generator) * 2 - 1 for name in ("photo", "anime", "smooth")}


def seen_by(network: torch.nn.Module) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


def test_a_step_updates_generator_and_both_discriminators_with_one_pass_each():
    model, data = build(), batch()
    gray_seen, colour_seen = seen_by(model.discriminator_support), seen_by(model.discriminator_main)
    with torch.no_grad():
        unfiltered, main = model.generator.both(data["photo"])
    support = self_guided(unfiltered)
    target = l0_smooth(self_guided(unfiltered, eps=1e-3), 0.005)
    names, values = [], {}
    parameters = {name: list(network.parameters()) for name, network in model.networks().items()}
    for name, evaluation in model.updates(data):
        names.append(name)
        with trained_alone(parameters, name):
            total, values[name] = evaluation.compute()
            total.backward()
        trained = {
            other for other, network in model.networks().items() for p in network.parameters() if p.grad is not None
        }
        assert trained == {name}
        model.zero_grad(set_to_none=True)
    assert names == ["generator", "discriminator_support", "discriminator_main"]

    # The generator's pass, then that of the discriminator's own update, over all that it judges.
    assert [len(images) for images in gray_seen] == [2, 6]
    assert [len(images) for images in colour_seen] == [2, 4]
    torch.testing.assert_close(gray_seen[0], gray(support))
    torch.testing.assert_close(gray_seen[1], gray(torch.cat([data["anime"], support, data["smooth"]])))
    torch.testing.assert_close(colour_seen[0], main)
    torch.testing.assert_close(colour_seen[1], torch.cat([target, main]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(values["generator"]["main_l1"], (main - target).abs().mean(), atol=1e-4, rtol=1e-4)
    assert set(values["discriminator_support"]) == {"real", "fake", "smooth"}


def test_labels_and_weights_of_the_published_styles():
    support = build().objectives["discriminator_support"]
    assert {name: (support.term(name).weight, support.term(name).loss.label) for name in support.terms} == {
        "real": (0.5, 0.9),
        "fake": (1.0, 0.1),
        "smooth": (2.0, 0.1),
    }
    config = compose_config("train", ["experiment=animegan/v3_shinkai"]).model
    weights = {name: term.weight for name, term in config.objectives.generator.items() if not name.startswith("_")}
    assert weights == {
        "adversarial": 1.0,
        "content": 0.5,
        "style_fine": 0.1,
        "style_middle": 2.0,
        "style": 28.0,
        "regions": 0.8,
        "photo_regions": 0.5,
        "colour": 8,
        "tv": 1e-4,
        "main_adversarial": 0.02,
        "main_l1": 50,
        "main_content": 0.5,
        "main_tv": 1e-4,
    }
    assert config.salt == 0.1
    assert config.objectives.discriminator_support.smooth.weight == 5
    assert config.objectives.pretrain.content_main is None
    assert config.objectives.pretrain.content_support.weight == 1


def test_targets_and_regions_are_constants():
    model, data = build(), batch()
    for name, evaluation in model.updates(data):
        if name == "generator":
            for entry in ("target", "support_regions", "photo_regions"):
                assert not evaluation.entries[entry]().requires_grad
            regions = evaluation.entries["photo_regions"]()
            torch.testing.assert_close(regions, l0_smooth(data["photo"], 0.02))
            assert evaluation.entries["target"]() is evaluation.entries["target"]()  # computed once


def test_regions_from_the_data_are_used():
    data = batch()
    data["regions"] = torch.zeros(2, 3, 32, 32)
    _, evaluation = next(build().updates(data))
    assert evaluation.entries["photo_regions"]() is data["regions"]


def test_salt_whitens_its_share_of_pixels():
    model = build("model.salt=0.1")
    black = torch.full((4, 3, 64, 64), -1.0)
    salted = model._salted(black)
    white = (salted == 1).all(1)
    assert white.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert torch.equal(salted.masked_fill(white[:, None], -1.0), black)
    assert build()._salted(black) is black


def test_the_first_phase_trains_the_generator_alone():
    model = build("model.pretrain_steps=1", "features=random", "~model.objectives.pretrain.content_main")
    updates = list(model.updates(batch()))
    assert [name for name, _ in updates] == ["pretrain"]
    _, values = updates[0][1].compute()
    assert list(values) == ["content_support"]
    model.train_step = 1
    assert next(name for name, _ in model.updates(batch())) == "generator"


def test_preview_shows_both_tails():
    model = build().eval()
    data = batch(36)  # padded to a multiple of 8 and cropped
    with torch.no_grad():
        shown = model.preview({"photo": data["photo"]})
        assert list(shown) == ["photo", "support", "output"]
        assert shown["support"].shape == shown["output"].shape == data["photo"].shape
        torch.testing.assert_close(shown["output"], model.stylize(data["photo"])[0])


def test_data_without_smoothed_pictures_are_named():
    data = batch()
    del data["smooth"]
    judges = next(evaluation for name, evaluation in build().updates(data) if name == "discriminator_support")
    with pytest.raises(AnimegenError, match=r"data\.smooth=online"):
        judges.compute()
