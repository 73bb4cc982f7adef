import pytest
import torch
from torch import Tensor, nn

from animegen.engine import AnimegenError, Context, Objective, Term


class Difference(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean()


class FeatureMean(nn.Module):
    def __init__(self, layers: list[str]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, image: dict[str, Tensor]) -> Tensor:
        return sum(value.mean() for value in image.values())


class CountingFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, ...]] = []

    def forward(self, image: Tensor, layers: tuple[str, ...]) -> dict[str, Tensor]:
        self.calls.append(tuple(layers))
        return {layer: image * float(layer[-1]) for layer in layers}


TARGET = f"{__name__}.Difference"


def config(weight: float = 1.0, **more: object) -> dict:
    return {"loss": {"_target_": TARGET}, "weight": weight, "reads": {"a": "x", "b": "y"}, **more}


def test_total_is_the_weighted_sum_and_terms_are_raw() -> None:
    objective = Objective(one=config(2.0), two=config(0.5))
    total, terms = objective(x=torch.full((2, 3), 4.0), y=torch.ones(2, 3)).compute()
    assert {name: value.item() for name, value in terms.items()} == {"one": 3.0, "two": 3.0}
    assert total.item() == 7.5


def test_null_and_weightless_terms_are_never_built() -> None:
    broken = {"loss": {"_target_": "animegen.does.not.exist"}, "weight": 0}
    objective = Objective(kept=config(), gone=None, silent=broken)
    assert list(objective.terms) == ["kept"]


def test_start_and_ramp() -> None:
    objective = Objective(late=config(8.0, start=10, ramp=4), always=config(1.0))
    assert objective.active() == ["always"]
    weights = []
    for step in (10, 11, 13, 50):
        objective.step = step
        weights.append(objective.weight("late"))
    assert weights == [2.0, 4.0, 8.0, 8.0]


def test_entries_that_nobody_reads_are_not_computed() -> None:
    objective = Objective(one=config())

    def expensive() -> Tensor:
        raise AssertionError("computed without need")

    objective(x=torch.zeros(1), y=torch.zeros(1), other=expensive).compute()


def test_lazy_entries_are_computed_once_and_may_come_together() -> None:
    calls = []

    def both() -> dict[str, Tensor]:
        calls.append(1)
        return {"x": torch.tensor([3.0]), "y": torch.tensor([1.0])}

    total, _ = Objective(one=config(), two=config())(x=both, y=both).compute()
    assert total.item() == 4.0
    assert len(calls) == 1


def test_one_feature_pass_per_image_serves_all_terms() -> None:
    features = CountingFeatures()
    objective = Objective(
        a=Term(FeatureMean(["l1", "l2"]), reads={"image": "x"}), b=Term(FeatureMean(["l3"]), reads={"image": "x"})
    )
    total, _ = objective(x=torch.ones(1, 1), features=features).compute()
    assert features.calls == [("l1", "l2", "l3")]
    assert total.item() == 6.0


def test_targets_get_no_graph() -> None:
    features = CountingFeatures()
    context = Context({"x": torch.ones(1, requires_grad=True), "y": torch.ones(1), "features": features})
    assert context.features("x", ("l2",))["l2"].requires_grad
    assert not context.features("y", ("l2",))["l2"].requires_grad


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"a": {**config(), "wieght": 3}}, "Did you mean 'weight'"),
        ({"a": {"weight": 1}}, "has no loss"),
        ({"a": {**config(), "reads": {"a": "x"}}}, "must say what Difference reads: 'reads: {a: <entry>, b: <entry>}'"),
        ({"a": {**config(), "reads": {"a": "x", "b": "y", "c": "z"}}}, "must say what Difference reads"),
        ({"a": {**config(), "loss": {"_target_": f"{__name__}.Differenc"}}}, "Did you mean 'Difference'"),
        ({"a": {**config(), "loss": {"_target_": TARGET, "power": 2}}}, "Difference has no setting 'power'"),
    ],
)
def test_mistakes_in_terms_are_explained(terms: dict, words: str) -> None:
    with pytest.raises(AnimegenError, match=words):
        Objective(**terms)


def test_an_unknown_entry_names_the_known_ones() -> None:
    with pytest.raises(AnimegenError, match=r"reads 'y'.*provides: x"):
        Objective(a=config())(x=torch.zeros(1)).compute()


def test_missing_features_name_the_remedy() -> None:
    objective = Objective(a=Term(FeatureMean(["l1"]), reads={"image": "x"}))
    with pytest.raises(AnimegenError, match="set features=vgg19"):
        objective(x=torch.zeros(1), features=None).compute()


def test_calibration_factors_travel_in_the_state_dict() -> None:
    first, second = Objective(a=config(2.0)), Objective(a=config(2.0), b=config())
    first.factors["a"] = 3.0
    second.load_state_dict(first.state_dict(), strict=False)
    assert second.weight("a") == 6.0
    assert second.weight("b") == 1.0


def test_losses_that_hydra_already_built_are_taken() -> None:
    objective = Objective(one={"loss": Difference(), "reads": {"a": "x", "b": "y"}})
    total, _ = objective(x=torch.tensor([3.0]), y=torch.tensor([1.0])).compute()
    assert total.item() == 2.0


def test_shared_entries_need_not_be_bound() -> None:
    objective = Objective(a=Term(FeatureMean(["l2"]), reads={"image": "x"}))
    objective.shared["features"] = CountingFeatures()
    assert objective(x=torch.ones(1, 1)).compute()[0].item() == 2.0


def test_a_wrong_entry_names_the_term() -> None:
    with pytest.raises(AnimegenError, match=r"The loss term 'one': .*reads 'y'"):
        Objective(one=config())(x=torch.zeros(1)).compute()
