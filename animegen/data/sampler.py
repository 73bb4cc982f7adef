"""Stateless samplers and counter-based random numbers.

Random numbers are hashes of (seed, purpose, sample number): the same on every device, with any number of workers, in
any batch and after a resume, without a generator state to save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils.data import Sampler

# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1
#: Bits of a hash used for a random number, as many as float32 represents exactly.
BITS = 24


def counter_hash(*parts: int | str) -> int:
    """Hash integers and names to 64 bits, returned as a signed integer (torch int64)."""
    state = 0
    for part in parts:
        state = _mix((state ^ (name_key(part) if isinstance(part, str) else part)) & _MASK)
    return _signed(state)


def counter_hash_tensor(prefix: int, *parts: Tensor) -> Tensor:
    """Continue the hash ``prefix = counter_hash(...)`` with int64 tensors that broadcast.

    ``counter_hash_tensor(counter_hash(a, b), c)`` equals ``counter_hash(a, b, c)`` for every element of c.
    """
    state: Tensor | int = prefix
    for part in parts:
        state = _mix_tensor(part ^ state)
    return torch.as_tensor(state)


def draw_integer(count: int, *parts: int | str) -> int:
    """Return an integer in 0 ... count - 1 from the hash of ``parts``; count is at most 2**24."""
    return (((counter_hash(*parts) & _MASK) >> (64 - BITS)) * count) >> BITS


def random_bits(hashed: Tensor) -> Tensor:
    """Return the top 24 bits of hashes, as int64 in [0, 2**24)."""
    return (hashed >> (64 - BITS)) & (2**BITS - 1)


def uniform(hashed: Tensor) -> Tensor:
    """Convert hashes to float32 numbers in [0, 1)."""
    return random_bits(hashed).to(torch.float32) * 2.0**-BITS


@lru_cache(maxsize=4096)
def name_key(name: str) -> int:
    """Return a 64-bit hash of a name, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


@lru_cache(maxsize=16)
def permutation(seed: int, stream: str, epoch: int, length: int) -> Tensor:
    """Return a random order of ``range(length)``, int64 ``(length,)``: a function of its arguments alone.

    It is the order of hashes, so it does not depend on the version of a library's shuffle. The result is cached: do not
    modify it.
    """
    keys = counter_hash_tensor(counter_hash(seed, "order", stream, epoch), torch.arange(length))
    return torch.argsort(keys, stable=True)


def stream_index(seed: int, stream: str, number: int, length: int) -> int:
    """Return the index of the image of global sample ``number`` in a stream of ``length`` images.

    Each block of ``length`` consecutive numbers uses every image exactly once, in a new order.
    """
    epoch, place = divmod(number, length)
    return int(permutation(seed, stream, epoch, length)[place])


class ResumableBatchSampler(Sampler[list[int]]):
    """Endless batches of global sample numbers, starting at the current batch of the training.

    Batch s of a rank is ``range((s * world_size + rank) * batch_size, ...)``: ranks divide the global batch. The only
    state is ``s``, and there are no epochs.

    Args:
        batch_size: samples per rank and batch.
        start_step: number of batches trained so far, or a function that returns it. It is called at the start of an
            iteration, since checkpoints are loaded after the loader is created.
        rank: number of this process.
        world_size: number of processes.
        repeat: repeat the first batch.
    """

    def __init__(
        self,
        batch_size: int,
        start_step: int | Callable[[], int] = 0,
        rank: int = 0,
        world_size: int = 1,
        repeat: bool = False,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"no batches for batch_size={batch_size}, rank={rank}, world_size={world_size}")
        self.batch_size, self.rank, self.world_size, self.repeat = batch_size, rank, world_size, repeat
        self._start_step = start_step

    def __iter__(self) -> Iterator[list[int]]:
        step = self._start_step() if callable(self._start_step) else self._start_step
        while True:
            first = ((0 if self.repeat else step) * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))
            step += 1


class ShardedBatchSampler(Sampler[list[int]]):
    """Every sample of a finite view once, in order, distributed over ranks without padding.

    Args:
        length: number of samples.
        batch_size: samples per rank and batch; the last batch may be smaller.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, length: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(f"no batches for batch_size={batch_size}, rank={rank}, world_size={world_size}")
        numbers = list(range(rank, length, world_size))
        self._batches = [numbers[i : i + batch_size] for i in range(0, len(numbers), batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


def _mix(value: int) -> int:
    value = (value + _GAMMA) & _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _mix_tensor(value: Tensor) -> Tensor:
    """Compute the same in int64, which wraps around; the sign bits of arithmetic shifts are masked."""
    value = value + _signed(_GAMMA)
    value = (value ^ ((value >> 30) & (2**34 - 1))) * _signed(_FIRST)
    value = (value ^ ((value >> 27) & (2**37 - 1))) * _signed(_SECOND)
    return value ^ ((value >> 31) & (2**33 - 1))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
