"""Order and chance without state: everything random in the data is a function of counters.

A generator that remembers has to be saved, copied into workers and rewound; a hash of
(seed, what for, sample number) has not. The same numbers come out on every device, with any number
of workers, in any composition of the batch, and after any interruption.
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
#: Bits of a hash that become a random number: as many as float32 holds exactly.
BITS = 24


def counter_hash(*parts: int | str) -> int:
    """Hash integers and names to 64 bits; returned as a signed number, as torch's int64 has it."""
    state = 0
    for part in parts:
        state = _mix((state ^ (name_key(part) if isinstance(part, str) else part)) & _MASK)
    return _signed(state)


def counter_hash_tensor(prefix: int, *parts: Tensor) -> Tensor:
    """Go on hashing from ``prefix = counter_hash(...)`` with int64 tensors that broadcast.

    ``counter_hash_tensor(counter_hash(a, b), c)`` equals ``counter_hash(a, b, c)`` for every element of c.
    """
    state: Tensor | int = prefix
    for part in parts:
        state = _mix_tensor(part ^ state)
    return torch.as_tensor(state)


def draw_integer(count: int, *parts: int | str) -> int:
    """Draw from 0 ... count - 1 by the hash of ``parts``; count at most 2**24."""
    return (((counter_hash(*parts) & _MASK) >> (64 - BITS)) * count) >> BITS


def random_bits(hashed: Tensor) -> Tensor:
    """Return the top 24 bits of hashes, as int64 in [0, 2**24)."""
    return (hashed >> (64 - BITS)) & (2**BITS - 1)


def uniform(hashed: Tensor) -> Tensor:
    """Turn hashes into float32 numbers in [0, 1)."""
    return random_bits(hashed).to(torch.float32) * 2.0**-BITS


@lru_cache(maxsize=4096)
def name_key(name: str) -> int:
    """Return 64 bits that stand for a name, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


@lru_cache(maxsize=16)
def permutation(seed: int, stream: str, epoch: int, length: int) -> Tensor:
    """Return a random order of ``range(length)``, int64 ``(length,)``: a function of its arguments alone.

    It is the order of hashes, so that it does not depend on the version of any library's shuffle.
    Do not change the tensor: it is kept for the next call.
    """
    keys = counter_hash_tensor(counter_hash(seed, "order", stream, epoch), torch.arange(length))
    return torch.argsort(keys, stable=True)


def stream_index(seed: int, stream: str, number: int, length: int) -> int:
    """Return which of ``length`` images global sample ``number`` takes from a stream.

    Each run of ``length`` consecutive numbers takes every image exactly once, in a new order.
    """
    epoch, place = divmod(number, length)
    return int(permutation(seed, stream, epoch, length)[place])


class ResumableBatchSampler(Sampler[list[int]]):
    """Endless batches of global sample numbers, beginning where training stands.

    Batch s of a rank is ``range((s * world_size + rank) * batch_size, ...)``: ranks share out the global
    batch. There is no state but ``s``, and an epoch ends nowhere.

    Args:
        batch_size: samples per rank and batch.
        start_step: number of batches trained so far, or a function that tells; asked when an
            iteration begins, because a checkpoint is loaded after the loader was made.
        rank: number of this process.
        world_size: number of processes.
        repeat: give the first batch again and again (a model that cannot learn it has a defect).
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
    """Every sample of a finite view once, in order; ranks take turns and none is repeated to fill up.

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
    """Do the same in int64, which wraps around; its shift drags the sign along, which is masked away."""
    value = value + _signed(_GAMMA)
    value = (value ^ ((value >> 30) & (2**34 - 1))) * _signed(_FIRST)
    value = (value ^ ((value >> 27) & (2**37 - 1))) * _signed(_SECOND)
    return value ^ ((value >> 31) & (2**33 - 1))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
