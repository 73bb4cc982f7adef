"""Images kept in memory are the images that a view would have made."""

from __future__ import annotations

import pickle

import torch
from torch import Tensor

from animegen.data import InMemory, StillView


class Counted:
    """Three noisy images of 40 x 30, the second broken; counts how often each is read."""

    def __init__(self) -> None:
        self.reads: list[int] = []

    def __len__(self) -> int:
        return 3

    def name(self, index: int) -> str:
        return f"picture {index}"

    def image(self, index: int) -> Tensor:
        return torch.randint(256, (3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))

    def load(self, index: int) -> Tensor | None:
        self.reads.append(index)
        return None if index == 1 else self.image(index)


def test_a_view_sees_no_difference_and_reads_each_image_once() -> None:
    plain, counted = StillView(Counted(), size=16, seed=3), Counted()
    kept = StillView(InMemory(counted, size=16), size=16, seed=3)
    for number in range(12):
        assert torch.equal(plain[number]["photo"], kept[number]["photo"])
    assert sorted(counted.reads) == [0, 1, 2]
    assert kept.name(5) == plain.name(5)


def test_what_does_not_fit_is_read_again() -> None:
    counted = Counted()
    source = InMemory(counted, size=16, megabytes=0)
    assert torch.equal(source.image(0), source.image(0))
    assert counted.reads == [0, 0]


def test_workers_get_an_empty_memory() -> None:
    source = InMemory(Counted(), size=16)
    source.image(0)
    copy = pickle.loads(pickle.dumps(source))
    assert copy._kept == {}
    assert source._kept.keys() == {0}
