"""Small versions of frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from animegen.media.video.small import shrunk


@pytest.mark.parametrize(
    ("size", "small"), [((72, 128), (36, 64)), ((108, 192), (48, 85)), ((90, 33), (30, 11)), ((33, 257), (33, 256))]
)
def test_channels_one_by_one_are_channels_together(size: tuple[int, int], small: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    together = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    assert np.array_equal(shrunk(image.transpose(2, 0, 1), *small), together)


def test_each_pixel_is_a_mean() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(3, 2, 4) * 2
    assert shrunk(image, 1, 2).tolist() == [[[5, 21, 37], [9, 25, 41]]]
