"""Parts of a scene in drawing order, each an outline in its local space with one pose per frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from animegen.toonworld.palettes import MATERIALS, Material
from animegen.toonworld.streams import Stream

MAX_PARTS = 255  # part numbers are uint8 and 255 means "outside the frame"


@dataclass(frozen=True)
class Part:
    """A visible part: even-odd ``polygons`` [(N, 2)] in units of the frame height.

    ``layer`` is the parallax factor (0 = infinitely far, 1 = the ground), ``group`` the ink group (no lines are drawn
    between parts of one group) and ``haze`` the weight of the haze colour in the photo.
    """

    name: str
    polygons: tuple[np.ndarray, ...]
    material_name: str
    layer: float
    group: str
    haze: float

    @property
    def material(self) -> Material:
        """Colours, texture and class of the part."""
        return MATERIALS[self.material_name]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Bounding box of the outline: x0, y0, x1, y1."""
        points = np.concatenate(self.polygons)
        (x0, y0), (x1, y1) = points.min(0), points.max(0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass
class Stage:
    """The parts, poses and shadows of a scene.

    ``local_time`` (T,) is the time of the drawings in frames, constant while a drawing is held, ``time`` (T,) that of
    the camera and of all parts that move in every frame. ``speed`` is a factor on the rates of all motions.
    """

    seed: int
    split: str
    index: int
    aspect: float
    time: np.ndarray
    local_time: np.ndarray
    speed: float
    parts: list[Part] = field(default_factory=list)
    poses: list[np.ndarray] = field(default_factory=list)
    shadows: list[tuple[float, float, np.ndarray]] = field(default_factory=list)

    def stream(self, name: str) -> Stream:
        """Return the random stream of the given name."""
        return Stream(self.seed, self.split, self.index, name)

    def add(
        self,
        name: str,
        polygons: np.ndarray | list[np.ndarray],
        material: str,
        pose: np.ndarray,
        layer: float = 1.0,
        group: str | None = None,
        haze: float = 0.0,
    ) -> None:
        """Add a part in front of all earlier ones; ``pose`` (T or 1, 3, 3) maps local to world coordinates."""
        outline = tuple(polygons) if isinstance(polygons, list) else (polygons,)
        self.parts.append(Part(name, outline, material, layer, group or name, haze))
        self.poses.append(np.broadcast_to(pose, (len(self.time), 3, 3)))

    def cast_shadow(self, rx: float, ry: float, pose: np.ndarray) -> None:
        """Add an elliptical shadow on the ground at the given pose (T, 3, 3)."""
        self.shadows.append((rx, ry, np.broadcast_to(pose, (len(self.time), 3, 3))))
