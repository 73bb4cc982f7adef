"""Evaluations of large data sets use a stated number of samples."""

from __future__ import annotations

import re
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from animegen.benchmarks import baselines
from animegen.benchmarks import benchmark as module
from animegen.benchmarks.benchmark import SAMPLES, spread
from animegen.benchmarks.keyframes import KeyframeBenchmark
from animegen.benchmarks.stylise import StyliseBenchmark


class Numbered:
    """Samples and images that count how often they are read."""

    shuffle = False

    def __init__(self, count: int) -> None:
        self.count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> Tensor:
        self.read.append(index)
        return torch.full((3, 32, 32), index % 256, dtype=torch.uint8)

    def name(self, index: int) -> str:
        return f"{index}.png"

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        picture = self.image(index)
        return {"photo": picture, "anime": picture}


@pytest.mark.parametrize("count", [200, 2000, 20_000])
def test_no_more_images_are_read_of_a_larger_set(count: int) -> None:
    test, stills, photos, animes = (Numbered(count) for _ in range(4))
    benchmark = StyliseBenchmark(test, photos, animes, stills=stills, paired=False, limit=SAMPLES)
    benchmark.evaluate({"model": lambda photo: -photo})
    assert len(set(test.read)) == SAMPLES
    assert len(test.read) <= 2 * SAMPLES  # for the outputs, and for the distribution of the photos
    assert len(set(stills.read)) <= SAMPLES
    assert max(len(photos.read), len(animes.read)) <= baselines.FITTED


def test_a_large_test_set_is_sampled_evenly_and_the_table_says_so() -> None:
    test, train = Numbered(2000), Numbered(4)
    benchmark = StyliseBenchmark(test, train, train, limit=SAMPLES)
    scores = benchmark.evaluate({})
    assert scores["identity"]["ssim"]["n"] == SAMPLES == 64
    assert test.read == list(spread(range(2000), 64))
    assert {b - a for a, b in pairwise(test.read)} == {31, 32}
    assert benchmark.note == "64 of 2000 test samples, evenly spread; samples=null uses all."
    assert StyliseBenchmark(Numbered(64), train, train, limit=64).note is None
    assert StyliseBenchmark(Numbered(99), train, train, limit=None).note is None


def test_the_samples_that_are_done_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    train = Numbered(4)
    StyliseBenchmark(Numbered(5), train, train, batch_size=1).evaluate({})
    assert re.findall(r"^scoring \d methods: (\d) samples$", capsys.readouterr().err, re.MULTILINE) == ["2", "4"]


def test_colours_are_sampled_from_a_bounded_number_of_images() -> None:
    source = Numbered(20_000)
    (colours,) = baselines.sample_colours([source], 50_000)
    assert len(source.read) == baselines.FITTED == 1000
    assert len(colours) == 50_000
    assert min(source.read) < 20
    assert max(source.read) >= 19_980


def test_key_frame_projects_are_sampled_in_pairs() -> None:
    benchmark = object.__new__(KeyframeBenchmark)
    for total, limit, count in ((200, 64, 64), (65, 64, 64), (64, 64, 64), (30, 64, 30), (9, 1, 1), (9, None, 9)):
        benchmark.test, benchmark.limit = Numbered(total), limit  # type: ignore[assignment]
        used = list(benchmark._used())
        assert used == sorted(set(used))
        assert len(used) == count
        if count > 1:
            assert sum(b - a == 1 for a, b in pairwise(used)) >= count // 2
