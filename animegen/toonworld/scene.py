"""A scene of ToonWorld: its photo, anime and ground truth as a pure function of (seed, split, index)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from animegen.errors import AnimegenError, did_you_mean
from animegen.toonworld import layout, render, truth
from animegen.toonworld.atlas import Atlas
from animegen.toonworld.geometry import ellipse
from animegen.toonworld.palettes import SEMANTIC_CLASSES, STYLES
from animegen.toonworld.skies import painted_sky
from animegen.toonworld.stage import MAX_PARTS, Stage
from animegen.toonworld.streams import Stream
from animegen.toonworld.textures import Canvas

VERSION = 2  # of the renderer: increment it when any pixel changes, to invalidate caches
SPLITS = ("train", "val", "test")
POSE_GRID = 1024  # poses are rounded to 1/1024 pixel, for equal results with every libm
KEPT_FRAMES = 3
Size = int | tuple[int, int]  # a square's side, or (height, width)


def check_choice(what: str, value: str, options: tuple[str, ...]) -> None:
    """Raise :class:`AnimegenError` unless ``value`` is one of the options."""
    if value not in options:
        raise AnimegenError(
            f"ToonWorld has no {what} '{value}': choose one of {', '.join(options)}.{did_you_mean(str(value), options)}"
        )


def frame_shape(size: Size) -> tuple[int, int]:
    """Return (height, width) of ``size``: the side of a square, or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if min(height, width) < 16:
        raise AnimegenError(f"ToonWorld frames of {height}x{width} are too small: set size to 16 or more.")
    return height, width


@lru_cache(maxsize=4)
def _vignette(height: int, width: int) -> np.ndarray:
    """Return a vignette (H, W) float32 that darkens the corners by 22%."""
    y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / width * 2 - 1
    return (1 - 0.22 * np.clip((x * x + y * y) / 2, 0, 1) ** 1.2).astype(np.float32)


@dataclass
class _Frame:
    """Rasters of one frame, shared by looks and ground truth."""

    fine: np.ndarray  # (9H, 9W) part numbers
    coarse: np.ndarray  # (3H, 3W) part numbers
    centre: np.ndarray  # (H, W) part numbers at the pixel centres
    samples: np.ndarray | None = None  # (3H, 3W, 4) photo colour and shade
    shadow: np.ndarray | None = None  # (3H, 3W) 255 where a shadow lies on the ground


class Scene:
    """A clip of one scene.

    Args:
        seed: of the random streams, with ``split`` and ``index``.
        split: ``train``, ``val`` or ``test``.
        index: number of the scene.
        size: side of a square, or (height, width), in pixels; at least 16.
        frames: length of the clip.
        speed: factor on pan, walk, bounce and drift; ``None``: drawn from [0.25, 0.6].
        hold: frames per drawing, while the camera moves in every frame; ``None``: drawn from 1, 2, 2, 3.
        grain: add film grain to the photo. Like the following effects it does not move with the flow.
        shadow: add shadows to the photo.
        vignette: darken the corners of the photo.
        blur: blur the photo slightly.

    Raises:
        AnimegenError: for an unknown split or invalid numbers.
    """

    def __init__(
        self,
        seed: int = 0,
        split: str = "train",
        index: int = 0,
        size: Size = 128,
        frames: int = 48,
        speed: float | None = None,
        hold: int | None = None,
        grain: bool = True,
        shadow: bool = True,
        vignette: bool = True,
        blur: bool = True,
    ) -> None:
        check_choice("split", split, SPLITS)
        self.height, self.width = frame_shape(size)
        if frames < 1 or (hold is not None and hold < 1) or (speed is not None and speed <= 0):
            raise AnimegenError("A ToonWorld scene needs frames >= 1, hold >= 1 and speed > 0: correct these values.")
        self.seed, self.split, self.index, self.frames = seed, split, index, frames
        self.grain, self.shadow, self.vignette, self.blur = grain, shadow, vignette, blur
        pace = self._stream("pace")
        drawn_speed, drawn_hold = pace.uniform(0.25, 0.6), pace.pick((1, 2, 2, 3))
        self.speed = drawn_speed if speed is None else speed
        self.hold = drawn_hold if hold is None else hold
        time = np.arange(frames, dtype=float)
        self.stage = Stage(
            seed, split, index, self.width / self.height, time, self.hold * (time // self.hold), self.speed
        )
        self._sky_info = layout.build(self.stage)
        if len(self.stage.parts) > MAX_PARTS:
            raise AnimegenError(
                f"A ToonWorld scene of {self.height}x{self.width} needs {len(self.stage.parts)} parts and at most "
                f"{MAX_PARTS} can be numbered: choose a less wide size."
            )
        self.camera = layout.Camera(self._stream("camera"), time, frames, self.speed)
        self._poses, self._shadow_poses = self._compute_poses()
        self._outlines = render.Outlines([part.polygons for part in self.stage.parts])
        self._shadow_outlines = render.Outlines([(ellipse(rx, ry, points=28),) for rx, ry, _ in self.stage.shadows])
        self._frames: OrderedDict[int, _Frame] = OrderedDict()
        self._styles: dict[str, tuple[render.StyleTable, np.ndarray, np.ndarray]] = {}
        self._atlas: Atlas | None = None
        classes = [SEMANTIC_CLASSES.index(part.material.semantic) for part in self.stage.parts]
        self.semantic_of_part = np.array(classes, np.uint8)
        self._ground = np.array([part.material.semantic == "ground" for part in self.stage.parts])

    def _stream(self, name: str) -> Stream:
        return Stream(self.seed, self.split, self.index, name)

    def _compute_poses(self) -> tuple[np.ndarray, np.ndarray]:
        views = {
            layer: self.camera.view(layer, self.height, self.width) for layer in {p.layer for p in self.stage.parts}
        }
        parts = [views[part.layer] @ pose for part, pose in zip(self.stage.parts, self.stage.poses, strict=True)]
        shadows = [views[layout.GROUND] @ pose for _, _, pose in self.stage.shadows]
        poses, shadow_poses = np.stack(parts, 1), np.stack(shadows, 1)
        return np.rint(poses * POSE_GRID) / POSE_GRID, shadow_poses

    def _check_time(self, t: int) -> None:
        if not 0 <= t < self.frames:
            raise AnimegenError(f"The scene has no frame {t}: choose one from 0 to {self.frames - 1}.")

    @property
    def atlas(self) -> Atlas:
        """The scene's texture atlas, drawn on first use; most of the cost of a scene."""
        if self._atlas is None:
            self._atlas = Atlas(self.stage, self.height, self._sky_info)
        return self._atlas

    def prepare(self, styles: tuple[str, ...] = ()) -> None:
        """Draw the atlas and the skies of the styles now instead of on first use."""
        _ = self.atlas
        for style in styles:
            self._style(style)

    def poses(self, t: int) -> np.ndarray:
        """Return the poses (P, 3, 3) float64 of frame t, from local coordinates to pixels (centres at n + 1/2)."""
        self._check_time(t)
        return self._poses[t]

    def _frame(self, t: int) -> _Frame:
        self._check_time(t)
        if t in self._frames:
            self._frames.move_to_end(t)
            return self._frames[t]
        numbers = np.arange(len(self.stage.parts))
        fine = self._outlines.fill(self._poses[t], numbers, (self.height, self.width), render.FINE)
        frame = _Frame(fine, np.ascontiguousarray(fine[1::3, 1::3]), np.ascontiguousarray(fine[4::9, 4::9]))
        self._frames[t] = frame
        if len(self._frames) > KEPT_FRAMES:
            self._frames.popitem(last=False)
        return frame

    def _shaded(self, t: int) -> tuple[_Frame, np.ndarray, np.ndarray]:
        frame = self._frame(t)
        if frame.samples is None or frame.shadow is None:
            frame.samples = self._sample_atlas(t, frame.coarse)
            ones = np.full(len(self.stage.shadows), 255)
            shape = (self.height, self.width)
            frame.shadow = self._shadow_outlines.fill(self._shadow_poses[t], ones, shape, render.COARSE)
        return frame, frame.samples, frame.shadow

    def _sample_atlas(self, t: int, labels: np.ndarray) -> np.ndarray:
        """Return photo colour and shade (3H, 3W, 4) of every sample: one affine look-up into the atlas."""
        to_local = np.linalg.inv(self._poses[t])
        to_texel = self.atlas.to_texel @ to_local  # pixels -> texels
        # Sample (i, j) of the 3x raster is at ((i + 1/2) / 3, (j + 1/2) / 3) pixels.
        linear = to_texel[:, :, :2] / render.COARSE
        offset = to_texel[:, :, 2] + linear.sum(2) / 2
        tables = np.concatenate([linear, offset[:, :, None]], 2).astype(np.float32)
        maps = truth.affine_maps(labels, tables)
        return cv2.remap(self.atlas.image, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def labels(self, t: int) -> np.ndarray:
        """Return the part numbers (H, W) uint8 at the pixel centres of frame t."""
        return self._frame(t).centre.copy()

    def semantic(self, t: int) -> np.ndarray:
        """Return the indices (H, W) uint8 into ``SEMANTIC_CLASSES`` at the pixel centres."""
        return render.look_up(self._frame(t).centre, self.semantic_of_part)

    def photo(self, t: int) -> np.ndarray:
        """Return the photo look (H, W, 3) uint8 RGB of frame t."""
        frame, samples, shadow = self._shaded(t)
        image = render.shrink(samples)
        if self.blur:
            sigma = 0.4 * (self.height / 128) ** 0.32  # 0.4 px at 128, 0.5 px at 256
            image = cv2.GaussianBlur(image, (5, 5), sigma)
        factor = np.ones((self.height, self.width), np.float32)
        if self.shadow:
            ground = render.look_up(frame.coarse, np.where(self._ground, 255, 0).astype(np.uint8))
            soft = cv2.GaussianBlur(render.shrink_mask(shadow), (0, 0), 0.012 * self.height)
            factor -= cv2.multiply(soft, render.shrink_mask(ground), scale=0.45 / 255**2, dtype=cv2.CV_32F)
        if self.vignette:
            factor *= _vignette(self.height, self.width)
        if self.shadow or self.vignette:
            image = cv2.multiply(image, cv2.merge([factor] * 3), dtype=cv2.CV_32F)
        if self.grain:
            image = cv2.add(image, cv2.merge([self._grain(t)] * 3), dtype=cv2.CV_32F)
        if image.dtype != np.uint8:
            image = cv2.convertScaleAbs(np.maximum(image, 0))
        return image

    def _grain(self, t: int) -> np.ndarray:
        """Return film grain (H, W) float32, about normal with a standard deviation of 3 grey levels."""
        count = self.height * self.width
        total = self._stream(f"grain/{t}").raw_bytes(count * 4).reshape(4, count).sum(0, dtype=np.uint16)
        # The sum of four bytes has mean 510 and standard deviation 147.8.
        return ((total.astype(np.float32) - 510) * np.float32(3 / 147.8)).reshape(self.height, self.width)

    def _style(self, style: str) -> tuple[render.StyleTable, np.ndarray, np.ndarray]:
        if style not in self._styles:
            check_choice("style", style, STYLES)
            canvas = Canvas(self.stage.parts[0].bounds, 1.5 * self.height)
            painting = painted_sky(style, canvas, self._sky_info, self._stream(f"sky/{style}"))
            rgba = np.full((*painting.shape[:2], 4), 255, np.uint8)
            rgba[..., :3] = np.clip(np.rint(painting), 0, 255)
            (x, y), step = canvas.origin, 1 / canvas.density
            to_local = np.array([[step, 0, x], [0, step, y], [0, 0, 1]])
            self._styles[style] = render.StyleTable(style, self.stage, self.height), rgba, to_local
        return self._styles[style]

    def anime(self, t: int, style: str) -> np.ndarray:
        """Return the anime look (H, W, 3) uint8 RGB of frame t in one of ``STYLES``."""
        table, sky, sky_to_local = self._style(style)
        frame, samples, shadow = self._shaded(t)
        shades = np.ascontiguousarray(samples[..., 3])
        ground = render.look_up(frame.coarse, self._ground.astype(np.uint8))
        np.copyto(shades, 0, where=(shadow & ground * 255).astype(bool))
        to_sample = (self._poses[t][0] @ sky_to_local)[:2] * render.COARSE
        to_sample[:, 2] -= 0.5
        return render.anime(frame.coarse, shades, table, sky, to_sample)

    def flow(self, t: int, t2: int) -> np.ndarray:
        """Return the true flow (2, H, W) float32 in pixels from frame t to frame t2."""
        return truth.flow(self._frame(t).centre, self.poses(t), self.poses(t2))

    def visibility(self, t: int, t2: int) -> np.ndarray:
        """Return the visibility (H, W) uint8 in frame t2 of the points of frame t; see ``truth.visibility``."""
        return truth.visibility(self._frame(t).centre, self.flow(t, t2), self._frame(t2).fine)
