"""Moving digits: MovingMNIST from its file, or generated with fonts."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.data.sampler import counter_hash, draw_integer
from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.array_files import load_array

_SPLITS = ("train", "val", "test")
#: Fractions of the file's clips: 8000, 1000 and 1000 of 10,000 in GANime.
_PARTS = {"train": (0.0, 0.8), "val": (0.8, 0.9), "test": (0.9, 1.0)}
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
#: Side of a digit and of the frame in MovingMNIST, in pixels.
_DIGIT, _SIDE = 28, 64


class MovingDigits:
    """Clips of two digits that move on black and bounce off the borders (Srivastava et al. 2015).

    Args:
        path: ``mnist_test_seq.npy`` as published, (20, clips, 64, 64) uint8; ``None`` draws digits with OpenCV's fonts,
            slightly rotated and thickened.
        split: ``train``, ``val`` or ``test``: 80, 10 and 10 % of the file in order, or different generated clips.
        clips: number of clips; for a file, the maximum.
        frames: frames per clip, from the start. GANime used 10.
        size: side of the frames in pixels.
        seed: seed of generated clips.

    Raises:
        AnimegenError: for invalid values, or a file that is not MovingMNIST.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        split: str = "train",
        clips: int = 1000,
        frames: int = 20,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        if split not in _SPLITS:
            raise AnimegenError(f"split={split} is unknown: use {', '.join(_SPLITS)}.{did_you_mean(split, _SPLITS)}")
        if clips < 1 or frames < 3 or size < 16:
            raise AnimegenError(
                f"Moving digits need clips >= 1, frames >= 3 and size >= 16, not {clips}, {frames} and {size}."
            )
        self.path, self.split, self.seed = Path(path) if path else None, split, seed
        self.frames, self.size, self.count = frames, size, clips
        self.first = 0
        if self.path is not None:
            self.first, self.count = self._part()

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, Any]:
        # Each process opens the file itself: a memory map would be pickled as a copy.
        return {key: value for key, value in self.__dict__.items() if key != "_table"}

    def name(self, index: int) -> str:
        """Return a stable name such as ``train-00003``."""
        return f"{self.split}-{self.first + index:05d}"

    def length(self, index: int) -> int:
        """Return the number of frames, the same for all clips."""
        return self.frames

    def load(self, index: int, number: int) -> Tensor:
        """Return a frame as uint8 ``(3, size, size)``, grey."""
        if not (0 <= index < self.count and 0 <= number < self.frames):
            raise IndexError(f"frame {number} of clip {index}")
        grey = self._drawn(index, number) if self.path is None else self._file()[number, self.first + index]
        grey = np.ascontiguousarray(grey)
        if grey.shape != (self.size, self.size):
            grey = cv2.resize(grey, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return torch.from_numpy(grey).expand(3, -1, -1).contiguous()

    def _file(self) -> np.ndarray:
        table = self.__dict__.get("_table")
        if table is None:
            table = load_array(Path(str(self.path)), "an array", "give the path of mnist_test_seq.npy")
            if table.ndim != 4 or table.dtype != np.uint8 or table.shape[2] != table.shape[3]:
                raise AnimegenError(
                    f"'{self.path}' holds {table.dtype} {table.shape}, not (20, clips, 64, 64) uint8 as MovingMNIST:"
                    " give the path of mnist_test_seq.npy."
                )
            self.__dict__["_table"] = table
        return table

    def _part(self) -> tuple[int, int]:
        """Return the first clip of the split in the file, and the number of clips."""
        length, clips = self._file().shape[:2]
        if length < self.frames or clips < 10:
            raise AnimegenError(
                f"'{self.path}' has {clips} clips of {length} frames, too few for frames={self.frames} and the splits"
                " train, val and test."
            )
        begin, end = (round(share * clips) for share in _PARTS[self.split])
        return begin, min(self.count, end - begin)

    def _drawn(self, index: int, number: int) -> np.ndarray:
        frame = np.zeros((self.size, self.size), np.uint8)
        side = round(self.size * _DIGIT / _SIDE)
        for which in range(2):
            key = ("digits", self.seed, self.split, index, which)
            digit = _digit(
                side,
                *(
                    draw_integer(count, *key, what)
                    for count, what in ((10, "digit"), (4, "font"), (7, "turn"), (2, "weight"))
                ),
            )
            top, left = self._place(key, number, self.size - side)
            window = frame[top : top + side, left : left + side]
            np.maximum(window, digit, out=window)  # as in MovingMNIST
        return frame

    def _place(self, key: tuple[int | str, ...], number: int, room: int) -> tuple[int, int]:
        """Return top and left of a digit in a frame: straight motion, reflected at the borders."""
        angle = 2 * math.pi * (counter_hash(*key, "angle") % 2**32) / 2**32
        speed = self.size / _SIDE * (2 + 3 * (counter_hash(*key, "speed") % 2**32) / 2**32)  # pixels per frame
        places = []
        for what, step in (("top", math.sin(angle)), ("left", math.cos(angle))):
            begin = draw_integer(room + 1, *key, what)
            folded = (begin + number * speed * step) % (2 * room)
            places.append(round(min(folded, 2 * room - folded)))
        return places[0], places[1]


@lru_cache(maxsize=1024)
def _digit(side: int, digit: int, font: int, turn: int, weight: int) -> np.ndarray:
    """Draw a digit on a square of ``side`` pixels, uint8, rotated by -15 to 15 degrees."""
    large = 4 * side
    image = np.zeros((large, large), np.uint8)
    thickness = max(1, round(large * (0.07 + 0.04 * weight)))
    (width, height), _ = cv2.getTextSize(str(digit), _FONTS[font], 1.0, 1)
    scale = 0.72 * large / max(width, height)
    origin = (round((large - scale * width) / 2), round((large + scale * height) / 2))
    cv2.putText(image, str(digit), origin, _FONTS[font], scale, 255, thickness, cv2.LINE_AA)
    matrix = cv2.getRotationMatrix2D((large / 2, large / 2), 5.0 * (turn - 3), 1.0)
    turned = cv2.warpAffine(image, matrix, (large, large), flags=cv2.INTER_LINEAR)
    return cv2.resize(turned, (side, side), interpolation=cv2.INTER_AREA)
