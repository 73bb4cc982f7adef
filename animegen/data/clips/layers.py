"""Clips of moving layers that are cut out of still images: texture, occlusion and large motion at constant speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.data.memory import InMemory
from animegen.data.sampler import counter_hash
from animegen.data.sources import ImageFolder, next_good, prepare_source

#: Corners of the outline of a layer.
_CORNERS = 12
#: Opacity of a pixel, of 255, from which on it counts as covered.
_HALF = 127
#: Shorter side of the stills, relative to that of the frames.
_LARGEST = 1.4


class _Layer(NamedTuple):
    """One layer.

    Attributes:
        image: uint8 (h,w,4), RGB and opacity.
        place: centre (x, y) in the frame at the middle of the clip, in pixels.
        speed: displacement (x, y) per frame in pixels.
        angle: rotation at the middle, radians.
        turn: rotation per frame.
        scale: size at the middle.
        zoom: factor on the size per frame.
    """

    image: np.ndarray
    place: np.ndarray
    speed: np.ndarray
    angle: float
    turn: float
    scale: float
    zoom: float


class MovingLayers:
    """A still as the background, and pieces of other stills in front, each in a steady motion of its own.

    The motion is linear in time, and known. As in FlyingChairs (Dosovitskiy et al. 2015), what the layers show is
    arbitrary; they serve to learn matching and occlusion on real textures. Clips are drawn when they are read.

    Args:
        folders: folders of images.
        size: side of the frames.
        length: frames per clip.
        clips: number of clips.
        speed: largest speed of a layer in pixels per frame; speeds are log-uniform from 1/60 of it.
        layers: largest number of layers in front.
        seed: seed of the clips.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        size: int = 256,
        length: int = 9,
        clips: int = 4000,
        speed: float = 12.0,
        layers: int = 4,
        seed: int = 0,
    ) -> None:
        self.stills = [InMemory(ImageFolder(folder), round(_LARGEST * size)) for folder in folders]
        self.size, self.frames, self.clips, self.speed, self.layers, self.seed = (
            size,
            length,
            clips,
            speed,
            layers,
            seed,
        )
        self._latest: tuple[int, list[_Layer]] | None = None

    def __len__(self) -> int:
        return self.clips

    def name(self, index: int) -> str:
        """Return the number of a clip as a name."""
        return f"layers-{index:05d}"

    def length(self, index: int) -> int:
        """Return the number of frames, the same for all clips."""
        return self.frames

    def prepare(self) -> None:
        """List the stills."""
        for folder in self.stills:
            prepare_source(folder)

    def load(self, index: int, number: int) -> Tensor:
        """Return a frame as uint8 ``(3, size, size)``."""
        canvas = np.zeros((self.size, self.size, 3), np.float32)
        for layer in self._of(index):
            opaque = layer.image.shape[2] == 3
            border = cv2.BORDER_REFLECT_101 if opaque else cv2.BORDER_CONSTANT
            drawn = self._warped(layer.image, self._matrix(layer, number), border).astype(np.float32)
            if opaque:
                canvas = drawn
            else:
                opacity = drawn[..., 3:] / 255
                canvas += opacity * (drawn[..., :3] - canvas)
        return torch.from_numpy(canvas.round().clip(0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()

    def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
        """Return the exact motion between two frames of a clip, see :class:`~animegen.data.clips.truth.MovingSource`.

        A pixel moves as the topmost layer that covers it by more than half. The background covers all of the frame,
        since it is mirrored at its border.
        It is in sight if the pixel to which it moves shows the same layer.
        """
        layers = self._of(index)
        here, there = self._topmost(layers, number), self._topmost(layers, other)
        rows, columns = np.mgrid[: self.size, : self.size].astype(np.float64)
        flow = np.zeros((2, self.size, self.size))
        for place, layer in enumerate(layers):
            before, after = (np.vstack([self._matrix(layer, time), (0, 0, 1)]) for time in (number, other))
            change = after @ np.linalg.inv(before) - np.eye(3)
            moved = [row[0] * columns + row[1] * rows + row[2] for row in change[:2]]
            flow = np.where(here == place, moved, flow)
        x, y = (np.rint(base + way).astype(int) for base, way in zip((columns, rows), flow, strict=True))
        inside = (x >= 0) & (x < self.size) & (y >= 0) & (y < self.size)
        end = there[y.clip(0, self.size - 1), x.clip(0, self.size - 1)]
        return torch.from_numpy(flow.astype(np.float32)), torch.from_numpy(inside & (end == here))

    def _topmost(self, layers: Sequence[_Layer], number: int) -> np.ndarray:
        """Return the number of the layer that each pixel of a frame shows, int64 (size,size)."""
        shown = np.zeros((self.size, self.size), np.int64)
        for place, layer in enumerate(layers[1:], start=1):
            opacity = np.ascontiguousarray(layer.image[..., 3])
            cover = self._warped(opacity, self._matrix(layer, number), cv2.BORDER_CONSTANT)
            shown[cover > _HALF] = place
        return shown

    def _of(self, index: int) -> list[_Layer]:
        if self._latest is None or self._latest[0] != index:
            self._latest = index, self._drawn(index)
        return self._latest[1]

    def _warped(self, image: np.ndarray, matrix: np.ndarray, border: int) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (self.size, self.size), flags=cv2.INTER_CUBIC, borderMode=border)

    def _matrix(self, layer: _Layer, number: int) -> np.ndarray:
        """Return the matrix (2,3) from pixels of a layer's image to those of frame ``number``."""
        time = number - (self.frames - 1) / 2
        scale, angle = layer.scale * layer.zoom**time, layer.angle + layer.turn * time
        height, width = layer.image.shape[:2]
        turned = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        shift = layer.place + layer.speed * time - turned @ np.array([(width - 1) / 2, (height - 1) / 2])
        return np.concatenate([turned, shift[:, None]], 1)

    def _drawn(self, index: int) -> list[_Layer]:
        rng = np.random.default_rng(counter_hash(self.seed, "layers", index) % 2**63)
        background = self._still(rng)
        scale = rng.uniform(1.1, _LARGEST) * self.size / min(background.shape[:2])
        background = _resized(background, scale)
        layers = [self._moving(rng, background, 1.0)]
        for _ in range(rng.integers(1, self.layers + 1)):
            side = round(self.size * rng.uniform(0.12, 0.6))
            still = self._still(rng)
            height, width = still.shape[:2]
            side = min(side, height, width)
            top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
            piece = still[top : top + side, left : left + side]
            layers.append(self._moving(rng, np.dstack([piece, _outline(rng, side)]), rng.uniform(0.8, 1.25)))
        return layers

    def _moving(self, rng: np.random.Generator, image: np.ndarray, scale: float) -> _Layer:
        speed = self.speed * 60 ** (rng.random() - 1)
        way = rng.uniform(0, 2 * math.pi)
        front = image.shape[2] == 4
        place = rng.uniform(0.1, 0.9, 2) * self.size if front else np.full(2, self.size / 2)
        gain = 1.0 if front else 0.5
        return _Layer(
            image,
            place,
            gain * speed * np.array([math.cos(way), math.sin(way)]),
            rng.uniform(-0.5, 0.5) if front else rng.normal(0, 0.05),
            gain * rng.normal(0, 0.01),
            scale,
            math.exp(gain * rng.normal(0, 0.006)),
        )

    def _still(self, rng: np.random.Generator) -> np.ndarray:
        folder = self.stills[rng.integers(len(self.stills))]
        return next_good([folder], int(rng.integers(len(folder))))[0].permute(1, 2, 0).contiguous().numpy()


def _resized(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(16, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _outline(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return the opacity of a round, bumpy or thin shape, uint8 (side,side)."""
    angles = np.linspace(0, 2 * math.pi, _CORNERS, endpoint=False)
    radii = rng.uniform(0.45, 1.0, _CORNERS)
    stretch = np.array([1.0, rng.uniform(0.2, 1.0)])
    fine = np.linspace(0, 2 * math.pi, 6 * _CORNERS, endpoint=False)
    radius = np.interp(fine, angles, radii, period=2 * math.pi) if rng.random() < 0.5 else radii.repeat(6)
    points = side / 2 + 0.47 * side * stretch * np.stack([np.cos(fine), np.sin(fine)], 1) * radius[:, None]
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return mask


def layers_if_given(folders: str | Path | Sequence[str | Path] | None, **settings: Any) -> MovingLayers | None:
    """Return clips of moving layers from images; ``None`` without folders. For settings see :class:`MovingLayers`."""
    if not folders:
        return None
    return MovingLayers([folders] if isinstance(folders, str | Path) else folders, **settings)
