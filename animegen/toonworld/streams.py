"""Named random streams: every random number of ToonWorld is a pure function of (seed, split, index, name).

Only ``random()`` and raw 64-bit draws of PCG64 are used, whose streams NumPy guarantees across versions, unlike those
of ``normal``, ``integers`` and ``choice``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")


class Stream:
    """A named stream of random numbers, independent of all other names."""

    def __init__(self, seed: int, split: str, index: int, name: str) -> None:
        digest = hashlib.sha256(f"toonworld/{seed}/{split}/{index}/{name}".encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "little"))
        self._generator = np.random.Generator(self._bits)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def signed(self, low: float, high: float) -> float:
        """Return a number of random sign and of magnitude in [low, high)."""
        size = self.uniform(low, high)
        return size if self.chance(0.5) else -size

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return float(self._generator.random()) < probability

    def below(self, count: int) -> int:
        """Return an integer in [0, count)."""
        return min(int(self._generator.random() * count), count - 1)

    def pick(self, options: Sequence[Choice]) -> Choice:
        """Return one of the options with equal probability."""
        return options[self.below(len(options))]

    def grid(self, height: int, width: int) -> np.ndarray:
        """Return (height, width) float32 numbers in [-1, 1)."""
        return (self._generator.random((height, width)) * 2 - 1).astype(np.float32)

    def raw_bytes(self, count: int) -> np.ndarray:
        """Return ``count`` uniformly distributed bytes (little-endian order of the 64-bit draws)."""
        words = self._bits.random_raw(-(-count // 8))
        return np.asarray(words, dtype="<u8").view(np.uint8)[:count]
