"""Counters instead of state: the hash, the orders and the batches made of it."""

from __future__ import annotations

import itertools

import pytest
import torch

from animegen.data.sampler import (
    ResumableBatchSampler,
    ShardedBatchSampler,
    counter_hash,
    counter_hash_tensor,
    draw_integer,
    permutation,
    random_bits,
    stream_index,
    uniform,
)


def test_hash_is_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, as published with its reference code.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    gamma = 0x9E3779B97F4A7C15
    states = [(1234567 + k * gamma) % 2**64 for k in range(3)]
    assert [counter_hash(state) % 2**64 for state in states] == published


def test_tensor_hash_equals_the_slow_one() -> None:
    numbers = [0, 1, 5, 2**40 + 3, 2**62]
    fast = counter_hash_tensor(counter_hash(-3, "key"), torch.tensor(numbers)[:, None], torch.arange(4))
    assert fast.shape == (5, 4)
    for row, number in enumerate(numbers):
        assert fast[row].tolist() == [counter_hash(-3, "key", number, k) for k in range(4)]


def test_random_numbers_cover_their_range_evenly() -> None:
    hashed = counter_hash_tensor(counter_hash(1), torch.arange(100_000))
    numbers = uniform(hashed)
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.004)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.002)
    counts = torch.bincount((random_bits(hashed) * 10) >> 24, minlength=10)
    assert counts.sum() == 100_000
    assert counts.min() > 9_600
    # Neighbouring counters are not correlated.
    assert torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1].abs() < 0.01


def test_draw_integer_stays_inside_and_reaches_everything() -> None:
    assert {draw_integer(7, 0, "x", n) for n in range(500)} == set(range(7))
    assert {draw_integer(1, n) for n in range(20)} == {0}


def test_permutation_is_one_and_depends_on_every_argument() -> None:
    order = permutation(0, "photo", 0, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    others = [permutation(1, "photo", 0, 1000), permutation(0, "anime", 0, 1000), permutation(0, "photo", 1, 1000)]
    for other in others:
        assert (order == other).float().mean() < 0.01
    # No library's shuffle is involved, so this order is the same for ever.
    assert permutation(0, "photo", 0, 8).tolist() == sorted(
        range(8), key=lambda n: counter_hash(0, "order", "photo", 0, n)
    )


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_every_epoch_shows_each_image_once(length: int) -> None:
    taken = [stream_index(3, "photo", n, length) for n in range(4 * length)]
    for epoch in range(4):
        assert sorted(taken[epoch * length : (epoch + 1) * length]) == list(range(length))


def batches(count: int, **options: object) -> list[list[int]]:
    return list(itertools.islice(ResumableBatchSampler(**options), count))  # type: ignore[arg-type]


def test_batches_count_on() -> None:
    assert batches(3, batch_size=2) == [[0, 1], [2, 3], [4, 5]]
    assert batches(2, batch_size=3, start_step=5) == [[15, 16, 17], [18, 19, 20]]


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_order_is_the_uninterrupted_one(stop: int) -> None:
    whole = batches(9, batch_size=4)
    assert batches(stop, batch_size=4) + batches(9 - stop, batch_size=4, start_step=stop) == whole


def test_start_is_asked_when_the_iteration_begins() -> None:
    step = 0
    sampler = ResumableBatchSampler(2, lambda: step)
    assert next(iter(sampler)) == [0, 1]
    step = 10
    assert next(iter(sampler)) == [20, 21]


def test_ranks_share_out_the_global_batch() -> None:
    alone = batches(5, batch_size=6, start_step=2)
    ranks = [batches(5, batch_size=2, start_step=2, rank=rank, world_size=3) for rank in range(3)]
    for step, whole in enumerate(alone):
        assert [number for rank in ranks for number in rank[step]] == whole


def test_repeat_gives_the_first_batch_for_ever() -> None:
    assert batches(3, batch_size=2, start_step=7, rank=1, world_size=2, repeat=True) == [[2, 3]] * 3


def test_sampler_has_no_length() -> None:
    with pytest.raises(TypeError):
        len(ResumableBatchSampler(2))  # type: ignore[arg-type]


def test_sharded_batches_take_each_sample_once() -> None:
    assert list(ShardedBatchSampler(5, 2)) == [[0, 1], [2, 3], [4]]
    shares = [list(ShardedBatchSampler(11, 2, rank, 3)) for rank in range(3)]
    assert sorted(n for share in shares for batch in share for n in batch) == list(range(11))
    assert [len(ShardedBatchSampler(11, 2, rank, 3)) for rank in range(3)] == [2, 2, 2]


def test_impossible_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        ResumableBatchSampler(0)
    with pytest.raises(ValueError, match="rank=2"):
        ShardedBatchSampler(5, 2, rank=2, world_size=2)
