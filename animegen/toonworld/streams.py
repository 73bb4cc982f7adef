"""Random streams by name: every choice of the generated world is a pure function of (seed, split, index, name).

Only ``random()`` and raw 64-bit draws of PCG64 are used: NumPy promises those streams across versions, and
promises nothing for ``normal``, ``integers`` or ``choice``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")


class Stream:
    """One named source of random numbers; a new prop or texture never changes the draws of another name."""

    def __init__(self, seed: int, split: str, index: int, name: str) -> None:
        digest = hashlib.sha256(f"toonworld/{seed}/{split}/{index}/{name}".encode()).digest()
        self._bits = np.random.PCG64(int.from_bytes(digest[:16], "little"))
        self._generator = np.random.Generator(self._bits)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * float(self._generator.random())

    def signed(self, low: float, high: float) -> float:
        """Return a number of either sign whose size lies in [low, high)."""
        size = self.uniform(low, high)
        return size if self.chance(0.5) else -size

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return float(self._generator.random()) < probability

    def below(self, count: int) -> int:
        """Return a whole number in 0 .. count - 1."""
        return min(int(self._generator.random() * count), count - 1)

    def pick(self, options: Sequence[Choice]) -> Choice:
        """Return one of the options, all equally likely."""
        return options[self.below(len(options))]

    def grid(self, height: int, width: int) -> np.ndarray:
        """Return (height, width) float32 numbers in [-1, 1)."""
        return (self._generator.random((height, width)) * 2 - 1).astype(np.float32)

    def raw_bytes(self, count: int) -> np.ndarray:
        """Return ``count`` uniformly distributed bytes (little-endian order of the 64-bit draws)."""
        words = self._bits.random_raw(-(-count // 8))
        return np.asarray(words, dtype="<u8").view(np.uint8)[:count]
