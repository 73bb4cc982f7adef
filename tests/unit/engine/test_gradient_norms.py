"""Gradient norms by term, compared with values computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor, nn

from animegen.engine import AnimegenError, Objective
from animegen.engine.gradient_norms import gradient_norms, relative_gradient_norms
from animegen.models.ganime.adaptive import AdaptiveEvaluation
from tests.unit.engine.callbacks.small import Scaled, Small, fit


def test_norms_and_relative_norms_by_hand() -> None:
    a, b = nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor(3.0))
    frozen = nn.Parameter(torch.tensor(1.0), requires_grad=False)
    parts = {"both": 3 * a[0] + 4 * b, "square": -0.5 * b**2, "none": torch.tensor(7.0), "frozen": frozen * 2.0}
    norms = {name: value.item() for name, value in gradient_norms(parts, [a, b, frozen]).items()}
    assert norms == pytest.approx({"both": 5.0, "square": 3.0, "none": 0.0, "frozen": 0.0})
    relative = {name: value.item() for name, value in relative_gradient_norms(parts, [a, b]).items()}
    assert relative == pytest.approx({"both": 0.625, "square": 0.375, "none": 0.0, "frozen": 0.0})
    assert a.grad is None
    sum(parts.values(), torch.zeros(())).backward()  # the graph is still there
    assert a.grad is not None
    assert a.grad.tolist() == [3.0, 0.0]
    assert relative_gradient_norms({"none": torch.tensor(1.0)}, [a])["none"] == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_relative_norms_are_logged_at_the_interval(accumulate: int, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []

    class Rows(DummyLogger):
        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            rows.append(metrics)

    def trained(every: int) -> tuple[list[int], float]:
        rows.clear()
        model = Small({"one": 1.0, "three": 3.0}, gradient_norms=every, accumulate=accumulate)
        fit(model, tmp_path, steps=5, logger=Rows())
        return [
            n for n, row in enumerate(rows) if "train/generator/one_relative_grad_norm" in row
        ], model.generator.weight.item()

    steps, weight = trained(3)
    assert steps == [0, 3]
    assert rows[3]["train/generator/one_relative_grad_norm"] == pytest.approx(0.25)
    assert rows[3]["train/generator/three_relative_grad_norm"] == pytest.approx(0.75)
    assert trained(0) == ([], weight)
    with pytest.raises(AnimegenError, match="gradient_norms=-1"):
        Small(gradient_norms=-1)


def test_terms_behind_an_adaptive_weight_are_distinguished() -> None:
    last = nn.Parameter(torch.tensor([2.0]))
    image = last * torch.tensor([1.0, 2.0])
    leaf = image.detach().requires_grad_()
    terms = {
        "near": {"loss": Scaled(2.0), "weight": 3.0, "reads": {"x": "fake"}},  # 3 * 2 * mean
        "far": {"loss": Scaled(4.0), "reads": {"x": "fake"}},
        "game": {"loss": Scaled(1.0), "weight": 0.5, "reads": {"x": "fake_logits"}},
        "side": {"loss": Scaled(5.0), "reads": {"x": "encoded"}},
    }
    bound = Objective(**terms)(fake=leaf, fake_logits=lambda: 8 * leaf, encoded=last)
    adaptive = AdaptiveEvaluation(bound, image, leaf, last, cap=100.0)
    adaptive.apart = True
    total, _ = adaptive.compute()
    # The image's mean grows by 1.5 per unit of the weight; the game's scale is 10 * 1.5 / (8 * 1.5).
    norms = {name: value.item() for name, value in gradient_norms(adaptive.parts, [last]).items()}
    expected = {"near": 9.0, "far": 6.0, "game": 0.5 * 15.0, "side": 5.0}
    assert norms == pytest.approx(expected, rel=1e-3)
    (gradient,) = torch.autograd.grad(total, last, retain_graph=True)
    assert gradient.item() == pytest.approx(sum(expected.values()), rel=1e-3)
    plain = AdaptiveEvaluation(bound, image, leaf, last, cap=100.0)
    (same,) = torch.autograd.grad(plain.compute()[0], last)
    assert isinstance(same, Tensor)
    assert torch.equal(same, gradient)
