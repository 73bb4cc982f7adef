"""The training procedure of AnimeGAN: which images are drawn and judged when, and by whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from animegen.engine import AnimegenError, Objective, Term
from animegen.losses import L1, GANLoss
from animegen.models.animegan import AnimeGAN
from animegen.models.animegan.networks import Refiner
from animegen.nn.colour import gray
from animegen.nn.degradation import PhotoDegradation


class Counting(nn.Module):
    """A network of one factor that notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.factor_ = nn.Parameter(torch.tensor(0.5))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images)
        return images * self.factor_


def term(kind: str, entry: str, weight: float = 1.0) -> Term:
    target, side = ("real", "generator") if kind == "adversarial" else (kind, "discriminator")
    return Term(GANLoss("lsgan", target, side), weight=weight, reads={"logits": entry})


def model(discriminator_terms: dict[str, Term], generator_terms: dict[str, Term], **settings) -> AnimeGAN:
    made = AnimeGAN(
        Counting(),
        Counting(),
        objectives={
            "discriminator": Objective(**discriminator_terms),
            "generator": Objective(**generator_terms),
            "pretrain": Objective(l1=Term(L1(), reads={"image": "fake", "reference": "photo"})),
        },
        **settings,
    )
    return made.train()


def batch() -> dict[str, Tensor]:
    return {name: torch.rand(2, 3, 8, 8) * 2 - 1 for name in ("photo", "anime", "smooth")}


ALL = {
    "real": term("real", "real_logits", 1.5),
    "fake": term("fake", "fake_logits"),
    "gray": term("fake", "gray_logits"),
    "smooth": term("fake", "smooth_logits", 0.1),
}


def test_one_discriminator_pass_over_exactly_what_terms_read() -> None:
    data = batch()
    made = model(ALL, {"adversarial": term("adversarial", "fake_logits")})
    updates = made.updates(data)
    name, evaluation = next(updates)
    total, values = evaluation.compute()
    assert name == "discriminator"
    (shown,) = made.discriminator.shown
    fake = data["photo"] * 0.5
    expected = torch.cat([data["anime"], fake, gray(data["anime"]), gray(data["smooth"])])
    torch.testing.assert_close(shown, expected)
    by_hand = {
        "real": ((data["anime"] * 0.5 - 1) ** 2).mean(),
        "fake": ((fake * 0.5) ** 2).mean(),
        "gray": ((gray(data["anime"]) * 0.5) ** 2).mean(),
        "smooth": ((gray(data["smooth"]) * 0.5) ** 2).mean(),
    }
    torch.testing.assert_close({k: v.detach() for k, v in values.items()}, by_hand)
    torch.testing.assert_close(
        total.detach(), 1.5 * by_hand["real"] + by_hand["fake"] + by_hand["gray"] + 0.1 * by_hand["smooth"]
    )
    total.backward()
    assert made.generator.factor_.grad is None


def test_images_that_no_term_reads_are_not_judged() -> None:
    data = batch()
    del data["smooth"]
    made = model({k: ALL[k] for k in ("real", "fake")}, {"adversarial": term("adversarial", "fake_logits")})
    next(made.updates(data))[1].compute()
    assert made.discriminator.shown[0].shape[0] == 4


def test_both_updates_share_one_pass_of_the_generator() -> None:
    made = model(ALL, {"adversarial": term("adversarial", "fake_logits")})
    for _, evaluation in made.updates(batch()):
        evaluation.compute()
    assert len(made.generator.shown) == 1
    assert made.generator.shown[0].shape[0] == 2


def test_identity_and_restoration_join_the_pass_of_the_photos() -> None:
    data = batch()
    terms = {
        "identity": Term(L1(), reads={"image": "identity", "reference": "anime"}),
        "restoration": Term(L1(), reads={"image": "restored", "reference": "anime"}),
    }
    made = model(ALL, terms, degradation=PhotoDegradation())
    *_, (name, evaluation) = made.updates(data)
    _, values = evaluation.compute()
    assert name == "generator"
    (shown,) = made.generator.shown
    assert shown.shape[0] == 6
    torch.testing.assert_close(shown[2:4], data["anime"])
    torch.testing.assert_close(values["identity"], (data["anime"] * 0.5).abs().mean())


def test_no_fakes_are_made_on_steps_on_which_no_term_reads_them() -> None:
    data = batch()
    adversarial = Term(GANLoss("lsgan", "real", "generator"), reads={"logits": "fake_logits"}, every=3)
    terms = {"adversarial": adversarial, "restoration": Term(L1(), reads={"image": "restored", "reference": "anime"})}
    made = model(ALL, terms, degradation=PhotoDegradation(), discriminator_every=3)
    for step in range(4):
        made.train_step = step
        for objective in made.objectives.values():
            objective.step = step
        for _, evaluation in made.updates(data):
            evaluation.compute()
    # Photos and degraded drawings on the turns of the discriminator, degraded drawings alone between them.
    assert [len(shown) for shown in made.generator.shown] == [4, 2, 2, 4]
    assert all(torch.equal(made.generator.shown[turn][:2], data["photo"]) for turn in (0, 3))
    assert len(made.discriminator.shown) == 4


def test_restored_drawings_are_judged_as_fakes_are() -> None:
    torch.manual_seed(0)
    data = batch()
    judged = {"real": term("real", "real_logits"), "restored": term("fake", "restored_logits")}
    made = model(judged, {"adversarial": term("adversarial", "restored_logits")}, degradation=PhotoDegradation())
    (_, first), (_, second) = list(made.updates(data))
    (restored,) = (shown * 0.5 for shown in made.generator.shown)
    assert len(restored) == 2  # no term reads what becomes of photos
    _, values = first.compute()
    torch.testing.assert_close(values["restored"].detach(), ((restored * 0.5) ** 2).mean())
    total, values = second.compute()
    torch.testing.assert_close(values["adversarial"].detach(), ((restored * 0.5 - 1) ** 2).mean())
    total.backward()
    assert made.generator.factor_.grad.abs() > 0


def test_the_refiner_learns_from_photos_and_not_from_the_generator() -> None:
    torch.manual_seed(0)
    data = batch()
    made = model(
        {"real": term("real", "real_logits")},
        {"restoration": Term(L1(), reads={"image": "restored", "reference": "anime"})},
        degradation=PhotoDegradation(),
        refiner=Counting(),
        photo_discriminator=Counting(),
        pretrain_steps=1,
        discriminator_every=2,
    )
    judging = {"real": term("real", "photo_logits"), "fake": term("fake", "refined_logits")}
    refining = {
        "adversarial": term("adversarial", "refined_logits"),
        "l1": Term(L1(), reads={"image": "refined", "reference": "degraded"}),
    }
    made.objectives["photo_discriminator"], made.objectives["refiner"] = Objective(**judging), Objective(**refining)
    # Turns are counted from the end of pre-training, in which the refiner learns already.
    names = []
    for step in range(4):
        made.train_step = step
        names.append([name for name, _ in made.updates(data)])
    both = ["photo_discriminator", "refiner"]
    assert names == [
        ["pretrain"],
        ["discriminator", "generator", *both],
        ["generator"],
        ["discriminator", "generator", *both],
    ]

    made.train_step = 1
    evaluations = dict(made.updates(data))
    (degraded,) = made.refiner.shown[-1:]
    refined = degraded * 0.5
    torch.testing.assert_close(made.generator.shown[-1], refined)
    evaluations["generator"].compute()[0].backward()
    assert made.refiner.factor_.grad is None
    _, values = evaluations["photo_discriminator"].compute()
    torch.testing.assert_close(values["real"].detach(), ((data["photo"] * 0.5 - 1) ** 2).mean())
    torch.testing.assert_close(values["fake"].detach(), ((refined * 0.5) ** 2).mean())
    total, values = evaluations["refiner"].compute()
    torch.testing.assert_close(values["l1"].detach(), (degraded * 0.5).abs().mean())
    total.backward()
    assert made.refiner.factor_.grad.abs() > 0
    with pytest.raises(AnimegenError, match="need each other"):
        AnimeGAN(Counting(), refiner=Counting())


def test_the_refiner_begins_as_the_identity_and_stays_in_range() -> None:
    refiner = Refiner(0.125)
    assert sum(parameter.numel() for parameter in refiner.parameters()) == 36_307
    pictures = batch()["photo"].repeat(1, 1, 2, 2)
    assert torch.equal(refiner(pictures), pictures)
    nn.init.constant_(refiner.network.last.bias, 1.5)
    torch.testing.assert_close(refiner(pictures), (pictures + 1.5).clamp(-1, 1))


def test_without_an_adversarial_term_the_generator_update_never_asks_the_discriminator() -> None:
    made = model(ALL, {"content": Term(L1(), reads={"image": "fake", "reference": "photo"})})
    *_, (_, evaluation) = made.updates(batch())
    evaluation.compute()
    assert made.discriminator.shown == []


def test_phases() -> None:
    made = model(ALL, {"adversarial": term("adversarial", "fake_logits")}, pretrain_steps=2)
    assert [name for name, _ in made.updates(batch())] == ["pretrain"]
    made.train_step = 2
    assert [name for name, _ in made.updates(batch())] == ["discriminator", "generator"]


def test_colours_are_observed_once_per_step() -> None:
    data = batch()
    made = model(ALL, {"adversarial": term("adversarial", "fake_logits")})
    list(made.updates(data))
    assert made.colours.source_count.item() == 2 * 8 * 8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: list(
                model(ALL, {"r": Term(L1(), reads={"image": "restored", "reference": "anime"})}).updates(batch())
            ),
            "degradation",
        ),
        (lambda: AnimeGAN(Counting(), None, objectives={"discriminator": Objective(**ALL)}), "no discriminator"),
    ],
)
def test_mistakes_are_explained(make, words: str) -> None:
    with pytest.raises(AnimegenError, match=words):
        make()


def test_missing_smooth_images_name_the_remedy() -> None:
    data = batch()
    del data["smooth"]
    _, evaluation = next(model(ALL, {"adversarial": term("adversarial", "fake_logits")}).updates(data))
    with pytest.raises(AnimegenError, match=r"data\.smooth=online"):
        evaluation.compute()
