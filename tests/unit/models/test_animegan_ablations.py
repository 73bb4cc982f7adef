"""What the ablations change: who is updated when, what is judged, what is built, and where they fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from animegen.config.compose import compose_config
from animegen.config.fitting import check_ablations, fits
from animegen.config.groups import list_ablations
from animegen.config.instantiate import build as build_node
from animegen.data import write_image
from animegen.engine import AnimegenError, Objective, Term
from animegen.engine.checkpoint import read_checkpoint
from animegen.engine.step_log import StepLog
from animegen.losses import GANLoss
from animegen.models.animegan import AnimeGAN, Autoencoder
from animegen.models.animegan.networks import AnimeGANv1Wide, OutputActivation, WhiteBoxDiscriminator
from animegen.models.animegan.whitebox import random_gray_weights, surface, texture
from animegen.nn.colour import gray
from animegen.nn.discriminators import PatchGAN, SNResNetPatch
from animegen.nn.filters import guided_filter
from tests.support import composed, train

STUDY = ("experiment=animegan/study", "size=tiny")


def build(*words: str) -> nn.Module:
    return build_node(composed(*words)["model"], "model")


def ablated(*names: str) -> nn.Module:
    return build(*STUDY, f"ablation=[{','.join(f'animegan/{name}' for name in names)}]")


def batch(side: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(2, 3, side, side, generator=generator) * 2 - 1 for name in ("photo", "anime", "smooth")}


def at(model: nn.Module, step: int) -> nn.Module:
    model.train_step = step
    for objective in model.objectives.values():
        objective.step = step
    return model


class Half(nn.Module):
    """Halves its input and notes how many pictures it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.factor_ = nn.Parameter(torch.tensor(0.5))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach())
        return images * self.factor_


def small(discriminator_terms: dict[str, Term], adversarial: str = "fake_logits", **settings: int) -> AnimeGAN:
    term = Term(GANLoss("lsgan", side="generator"), reads={"logits": adversarial})
    objectives = {"discriminator": Objective(**discriminator_terms), "generator": Objective(adversarial=term)}
    return AnimeGAN(Half(), Half(), objectives=objectives, **settings)


def judge(target: str, entry: str, **settings: int) -> Term:
    return Term(GANLoss("lsgan", target), reads={"logits": entry}, **settings)


def test_fakes_shown_on_every_fifth_step_alone() -> None:
    made = small({"real": judge("real", "real_logits"), "fake": judge("fake", "fake_logits", every=5, start=2)})
    data, counts = batch(8), []
    for step in range(13):
        made.discriminator.shown.clear()
        total, values = next(at(made, step).updates(data))[1].compute()
        counts.append(len(made.discriminator.shown[0]))
        torch.testing.assert_close(total, sum(values.values()))
        assert ("fake" in values) == (step in (2, 7, 12))
    assert [step for step, count in enumerate(counts) if count == 4] == [2, 7, 12]  # real and fake, two of each
    with pytest.raises(AnimegenError, match="every=0"):
        judge("fake", "fake_logits", every=0)


def test_updates_per_turn_and_turns_per_step() -> None:
    terms = {"real": judge("real", "real_logits")}
    made = small(terms, pretrain_steps=1, discriminator_every=3, discriminator_updates=2)
    names = [[name for name, _ in at(made, step).updates(batch(8))] for step in (1, 2, 3, 4)]
    turn = ["discriminator", "discriminator", "generator"]
    assert names == [turn, ["generator"], ["generator"], turn]
    for wrong in ({"discriminator_every": 0}, {"discriminator_updates": 0}):
        with pytest.raises(AnimegenError, match="at least 1"):
            small(terms, **wrong)
    with pytest.raises(AnimegenError, match="has no discriminator"):
        AnimeGAN(Half(), None, discriminator_every=2)


def test_the_optimizers_count_the_ratio(tmp_path: Path) -> None:
    words = ("model.pretrain_steps=1", "model.discriminator_every=2", "model.discriminator_updates=3")
    folder = train("experiment=animegan/quickstart", *words, "precision=fp32", "train_steps=5", output=tmp_path / "run")
    content = read_checkpoint(folder)
    steps = {
        name: int(state["state"][0]["step"])
        for name, state in zip(content["animegen"]["optimizers"], content["optimizer_states"], strict=True)
    }
    # Steps 1 to 4 are adversarial; the discriminator has its turn in the first and the third of them.
    assert steps == {"pretrain": 1, "discriminator": 2 * 3, "generator": 4, "photo_discriminator": 2, "refiner": 2}


def test_the_last_of_several_updates_is_logged() -> None:
    log = StepLog()
    log.begin()
    for value in (1.0, 2.0):
        log.restart("train/discriminator/")
        log.add("train/discriminator/real", torch.tensor(value))
        log.add("train/discriminator_main/real", torch.tensor(value))
    assert log.means() == {"train/discriminator/real": 2.0, "train/discriminator_main/real": 3.0}


def test_photos_and_gray_drawings_are_judged_on_request() -> None:
    data = batch(8)
    terms = {"photo": judge("fake", "photo_logits"), "gray": judge("fake", "fake_gray_logits")}
    made = small(terms, adversarial="fake_gray_logits")
    (_, first), (_, second) = list(made.updates(data))
    _, values = first.compute()
    drawn = gray(data["photo"] * 0.5)
    torch.testing.assert_close(values["photo"], ((data["photo"] * 0.5) ** 2).mean())
    torch.testing.assert_close(values["gray"], ((drawn * 0.5) ** 2).mean())
    _, values = second.compute()
    torch.testing.assert_close(values["adversarial"], ((drawn * 0.5 - 1) ** 2).mean())


def test_noise_on_all_that_is_judged_in_training() -> None:
    network, images = PatchGAN(width=0.125, noise=0.1), batch(64)["photo"]
    seen: list[Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(images)
    assert (seen[0] - images).std().item() == pytest.approx(0.1, rel=0.03)
    network.eval()(images)
    assert torch.equal(seen[1], images)


def test_sigmoid_that_is_not_stretched() -> None:
    x = torch.tensor([-50.0, 0.0, 50.0])
    assert OutputActivation("sigmoid01")(x).tolist() == pytest.approx([0.0, 0.5, 1.0])
    assert OutputActivation("sigmoid")(x).tolist() == pytest.approx([-1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("settings", "count"), [({}, 5_409_283), ({"blocks": 8}, 8_378_883), ({"blocks": 1, "outer": False}, 3_108_227)]
)
def test_parameters_of_the_student_project(settings: dict, count: int) -> None:
    with torch.device("meta"):
        network = AnimeGANv1Wide(**settings)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_student_projects_generator_draws_pictures() -> None:
    network = AnimeGANv1Wide(width=0.125).eval()
    assert network(batch(32)["photo"]).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("name", ["AnimeGANv2", "AnimeGANv2Lite", "AnimeGANv2LitePlain"])
def test_fewer_residual_blocks(name: str) -> None:
    def count(blocks: int) -> int:
        node = {"_target_": f"animegen.models.animegan.networks.{name}", "width": 0.25, "blocks": blocks}
        return sum(parameter.numel() for parameter in build_node(node, "generator").parameters())

    assert count(4) - count(2) == 2 * (count(2) - count(1)) > 0


def test_one_key_chooses_the_kind_of_all_adversarial_terms() -> None:
    for kind in ("hinge", "vanilla"):
        model = ablated(f"gan_{kind}")
        terms = [term for objective in model.objectives.values() for term in objective.terms.values()]
        assert [term.loss.kind for term in terms if isinstance(term.loss, GANLoss)] == [kind] * 5


def test_doubling_a_term() -> None:
    data = batch()
    model, base = at(ablated("gray_doubled"), 10**6), at(build(*STUDY), 10**6)
    model.load_state_dict(base.state_dict(), strict=False)
    total, found = next(model.eval().updates(data))[1].compute()
    plain_total, values = next(base.eval().updates(data))[1].compute()
    torch.testing.assert_close(found["gray"], found["gray_again"])
    torch.testing.assert_close(total - plain_total, base.objectives["discriminator"].weight("gray") * values["gray"])


def test_swapped_networks_and_models() -> None:
    assert isinstance(ablated("sn_resnet_discriminator").discriminator, SNResNetPatch)
    model = ablated("autoencoder")
    assert isinstance(model, Autoencoder)
    assert model.discriminator is None
    assert "restoration" in model.objectives["generator"].terms
    assert isinstance(ablated("animegeneration").generator, AnimeGANv1Wide)
    for name, factor in (("v3", 8), ("v1_wide_small", 4)):
        assert ablated(f"generator_{name}").generator.size_divisor == factor


def test_several_ablations_at_once() -> None:
    config = compose_config("train", [*STUDY, "ablation=[animegan/no_style,animegan/dropout,animegan/blocks_1]"])
    assert config.ablations == {"no_style": True, "dropout": True, "blocks_1": True}
    assert (config.model.objectives.generator.style, config.model.discriminator.dropout) == (None, 0.2)
    assert config.model.generator.blocks == 1
    check_ablations([*STUDY, "ablation=[animegan/no_style,animegan/dropout]"])


@pytest.mark.parametrize(
    ("ablation", "experiment"),
    [
        ("no_style", "quickstart"),  # which has none already
        ("norm_layer", "study"),  # which has it already
        ("dropout", "v3_hayao"),  # whose discriminators have other names
        ("decentralised_gram", "quickstart"),  # would be a part of a term
        ("generator_v1", "nst"),  # which draws otherwise
        ("lpips", "study"),  # which has no pairs
        ("colour_per_pixel", "v1"),  # the default
        ("lab_colour", "cartoongan"),  # which has no colour loss to change
        ("no_discriminator", "v3_hayao"),  # which has two
        ("long_pretraining", "paired"),  # which has no phase before
    ],
)
def test_an_ablation_that_does_not_fit(ablation: str, experiment: str) -> None:
    assert not fits(f"animegan/{ablation}", f"animegan/{experiment}")


def test_the_message_names_the_experiments_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    options = [f"experiment/animegan/{name}" for name in ("quickstart", "study", "v1")]
    words = ["experiment=animegan/quickstart", "ablation=animegan/no_style"]
    compose_config("train", words)
    monkeypatch.setattr("animegen.config.fitting.list_options", lambda: options)
    with pytest.raises(AnimegenError, match=r"fit experiment=animegan/quickstart.*: animegan/study, animegan/v1"):
        check_ablations(words)


def test_the_readme_names_every_ablation() -> None:
    text = (Path(__file__).parents[3] / "animegen/models/animegan/README.md").read_text()
    names = [name.split("/")[-1] for name in list_ablations() if name.startswith("animegan/")]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_regions_from_disk_are_cropped_like_their_photos(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    for folder, name in ((f, n) for f in ("photos", "anime") for n in range(3)):
        picture = torch.randint(256, (3, 40, 48), dtype=torch.uint8, generator=random)
        (tmp_path / folder).mkdir(exist_ok=True)
        write_image(tmp_path / folder / f"{name}.png", picture)
        (tmp_path / "regions").mkdir(exist_ok=True)
        if folder == "photos":
            write_image(tmp_path / "regions" / f"{name}.png", 255 - picture)
    words = [f"data.{key}={tmp_path / key}" for key in ("photos", "anime")]
    words += [f"data.regions_folder={tmp_path / 'regions'}", "data=unpaired/folders", "size=tiny", "data.holdout=0.4"]
    data = build_node(composed(*words)["data"], "data")
    data.setup("fit")
    assert data.train.aligned == [["photo", "regions"], ["anime"]]
    for number in range(6):
        sample = data.train[number]
        assert (sample["regions"].int() - (255 - sample["photo"].int())).abs().max() <= 2  # scaling rounds
    finished = data.finish_training(next(iter(data.train_dataloader())))
    torch.testing.assert_close(finished["regions"], -finished["photo"], atol=0.02, rtol=0)


def test_white_box_representations() -> None:
    images = batch(32)["photo"]
    torch.testing.assert_close(surface(images), guided_filter(images, images, 5, 0.2))
    weights = random_gray_weights(0.1)
    assert weights.sum().item() == pytest.approx(1)
    assert torch.equal(random_gray_weights(0.0), torch.tensor([0.299, 0.587, 0.114]))
    seen = texture(images, weights)
    torch.testing.assert_close(seen[:, 2], (images * weights[:, None, None]).sum(1))


def test_white_box_updates() -> None:
    model, data = build("model=animegan/whitebox_gan", "size=tiny", "features=random"), batch(32)
    assert sum(p.numel() for p in WhiteBoxDiscriminator().parameters()) == 287_137
    updates = list(model.updates(data))
    assert [name for name, _ in updates] == ["discriminator_surface", "discriminator_texture", "generator"]
    _, values = updates[0][1].compute()
    logits = model.eval().discriminator_surface(surface(data["anime"]))
    torch.testing.assert_close(values["real"], ((logits - 1) ** 2).mean(), atol=1e-4, rtol=1e-3)
    _, values = updates[2][1].compute()
    assert set(values) == {"surface", "texture", "content", "structure", "tv"}
    assert all(value > 0 for value in values.values())
