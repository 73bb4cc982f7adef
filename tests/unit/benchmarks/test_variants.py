"""Scores of several clips between the same two frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from animegen.benchmarks.registry import metric_info
from animegen.benchmarks.variants import VariantsBenchmark, variants_benchmark
from animegen.data.clips import ClipView, ToonWorldFrames
from animegen.errors import AnimegenError
from animegen.tasks.protocols import Sampling


@pytest.fixture(scope="module")
def view() -> ClipView:
    clips = ToonWorldFrames("meadow", "test", scenes=2, frames=5, size=(32, 32), speed=0.6)
    return ClipView(clips, 32, gap=4, middle="all", pairs=1, shuffle=False)


class Greys:
    """Draws the frames between as grey: the darker, the larger the seed."""

    max_frames = 5
    size_divisor = 1
    seen: tuple[Sampling, ...] = ()

    def generate(
        self, first: Tensor, last: Tensor, frames: int, sampling: Sampling | None = None, keys: Any = None
    ) -> Tensor:
        assert sampling is not None
        self.seen = (*self.seen, sampling)
        between = torch.full_like(first, -0.2 * (sampling.seed // len(first)))
        return torch.stack([first, *[between] * (frames - 2), last], 1)


def test_variants_are_measured_against_each_other_and_the_truth(view: ClipView) -> None:
    benchmark = VariantsBenchmark(variants=3, test=view)
    truth = torch.zeros(1, 5, 3, 8, 8)
    # Differences of .1, .3 and .2 (the ends do not count): 12.75, 38.25 and 25.5 levels.
    clips = torch.stack([truth + level for level in (0.1, 0.2, 0.4)], 1)
    clips[:, :, [0, -1]] = 1.0
    values = benchmark.measure({"clip": truth}, clips).values
    assert values["apart"].item() == pytest.approx((12.75 + 38.25 + 25.5) / 3, abs=1e-3)
    assert values["from_truth"].item() == pytest.approx(127.5 * 0.7 / 3, abs=1e-3)
    assert values["closest"].item() == pytest.approx(12.75, abs=1e-3)
    # PSNR of a constant error e in a range of 2: 20 log10(2 / e).
    expected = [20 * torch.log10(torch.tensor(2 / error)).item() for error in (0.1, 0.2, 0.4)]
    assert values["psnr_best"].item() == pytest.approx(expected[0], abs=1e-3)
    assert values["psnr"].item() == pytest.approx(sum(expected) / 3, abs=1e-3)


def test_a_model_samples_with_other_seeds_and_baselines_do_not_differ(view: ClipView) -> None:
    model = Greys()
    benchmark = VariantsBenchmark(variants=2, temperature=0.5, top_k=7, test=view, batch_size=2)
    scores = benchmark.evaluate({"model": benchmark.method_of(model)})
    assert [(s.seed, s.temperature, s.top_k, s.greedy) for s in model.seen] == [(0, 0.5, 7, False), (2, 0.5, 7, False)]
    assert scores["model"]["apart"]["mean"] == pytest.approx(0.2 * 127.5, abs=1e-3)
    assert scores["cross_fade"]["apart"]["mean"] == 0
    assert scores["cross_fade"]["psnr"] == scores["cross_fade"]["psnr_best"]
    assert benchmark.task == "generation_gap4_variants2"
    for metric in scores["model"]:
        metric_info(metric)
    headers, rows = benchmark.sample_rows({"model": benchmark.method_of(model)}, count=2)
    assert headers == ["first", "model_2", "model", "truth"]
    assert [image.mean().item() for image in rows[0][1:3]] == pytest.approx([-0.2, 0])


def test_equal_ends_show_the_first_frame_on_both_sides(view: ClipView) -> None:
    benchmark = VariantsBenchmark(variants=2, equal_ends=True, test=view)
    batch = next(benchmark.batches(torch.device("cpu")))
    drawn = benchmark.apply(lambda first, last, frames: torch.stack([first, *[last] * (frames - 1)], 1), batch)
    assert torch.equal(drawn, batch["clip"][:, None, :1].expand_as(drawn))
    assert benchmark.task.endswith("_equal_ends")


def test_what_cannot_be_scored_is_reported(view: ClipView) -> None:
    with pytest.raises(AnimegenError, match=r"at least 2, not benchmark\.variants=1"):
        VariantsBenchmark(variants=1, test=view)

    class Data:
        test, val = view, None

    class Interpolator:
        size_divisor = 1

    settings = {"variants": 2, "temperature": 1.0, "top_k": None, "equal_ends": False}
    benchmark = variants_benchmark(settings, Data(), Greys())  # type: ignore[arg-type]
    with pytest.raises(AnimegenError, match="scores models that sample clips, and Interpolator"):
        benchmark.method_of(Interpolator())
    Data.test = ClipView(view.clips, 32, gap=4, pairs=1, shuffle=False)  # middle=centre, which whole clips refuse
    with pytest.raises(AnimegenError, match="scores models that sample clips, and Interpolator"):
        variants_benchmark(settings, Data(), Interpolator())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("equal_ends", "maybe", r"benchmark\.equal_ends=maybe is not valid: use true or false"),
        ("variants", None, r"benchmark\.variants=null is not valid: it must be a number"),
        ("temperature", None, r"benchmark\.temperature=null is not valid: it must be a number"),
    ],
)
def test_values_of_the_wrong_type_are_reported(name: str, value: Any, message: str) -> None:
    settings = {"variants": 2, "temperature": 1.0, "top_k": None, "equal_ends": False, name: value}
    with pytest.raises(AnimegenError, match=message):
        variants_benchmark(settings, None, None)  # type: ignore[arg-type]
