"""Texture atlas of a scene: photo colour (RGB) and shade value (A) of every part in its local space."""

from __future__ import annotations

import cv2
import numpy as np

from animegen.toonworld.palettes import LIGHTS, Light, rgb
from animegen.toonworld.skies import photo_sky
from animegen.toonworld.stage import Part, Stage
from animegen.toonworld.streams import Stream
from animegen.toonworld.textures import Canvas, shade, texture

TEXELS_PER_PIXEL = 1.25  # at zoom 1; the closest view magnifies a texel to about 1.6 pixels
SKY_DENSITY = 0.6  # relative to the other parts, since skies are smooth
SUB = 16  # fixed-point steps per texel of OpenCV's polygon rasteriser at shift 4


def mask_of(part: Part, canvas: Canvas) -> np.ndarray:
    """Return the mask of a part on its canvas: (H, W) uint8, 255 inside."""
    mask = np.zeros(canvas.size[::-1], np.uint8)
    points = [np.rint((polygon - canvas.origin) * canvas.density * SUB).astype(np.int32) for polygon in part.polygons]
    return cv2.fillPoly(mask, points, 255, cv2.LINE_8, 4)


class Weather:
    """Kind, strength and direction of the light of a scene, drawn from the stream ``light``."""

    def __init__(self, stream: Stream) -> None:
        self.name = stream.pick(("noon", "noon", "morning", "evening", "overcast"))
        self.light: Light = LIGHTS[self.name]
        self.strength = stream.uniform(0.9, 1.08)
        direction = np.array([stream.signed(0.35, 0.65), -stream.uniform(0.55, 0.75), stream.uniform(0.50, 0.65)])
        self.direction = direction / np.linalg.norm(direction)

    @property
    def colour(self) -> np.ndarray:
        """Multiplier (3,) of every albedo."""
        return np.array(self.light.colour) * self.strength


class Atlas:
    """All tiles of a scene in one RGBA image.

    ``image`` (rows, columns, 4) uint8; ``to_texel`` (P, 2, 3) maps a part's local coordinates to OpenCV texel
    coordinates of the image (texel centres at integers).
    """

    def __init__(self, stage: Stage, height: int, sky: dict[str, float]) -> None:
        self.weather = Weather(stage.stream("light"))
        self._stage, self._sky = stage, sky
        density = TEXELS_PER_PIXEL * height
        densities = [density * SKY_DENSITY, *[density] * (len(stage.parts) - 1)]
        canvases = [Canvas(part.bounds, d) for part, d in zip(stage.parts, densities, strict=True)]
        places, shape = _shelves([canvas.size for canvas in canvases], 8 * height)
        self.image = np.zeros((*shape, 4), np.uint8)
        self.to_texel = np.zeros((len(canvases), 2, 3))
        self._sky_tile = photo_sky(canvases[0], self.weather.light, sky, stage.stream("photo-sky"))
        self._sky_canvas = canvases[0]
        self._soft_sky = cv2.GaussianBlur(self._sky_tile, (0, 0), 0.02 * canvases[0].density)
        for number, (part, canvas, (row, column)) in enumerate(zip(stage.parts, canvases, places, strict=True)):
            width, tall = canvas.size
            target = self.image[row : row + tall, column : column + width]
            colour, value = self._tile(number, part, canvas)
            target[..., :3] = np.clip(np.rint(colour), 0, 255)
            target[..., 3] = np.rint(value * 255)
            corner = np.array([column, row]) - canvas.origin * canvas.density
            self.to_texel[number] = [[canvas.density, 0, corner[0]], [0, canvas.density, corner[1]]]

    def _tile(self, number: int, part: Part, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
        """Return photo colour (H, W, 3) in [0, 255] and shade (H, W) in [0, 1] of one part."""
        material, weather = part.material, self.weather
        if number == 0:
            return self._sky_tile, np.full(canvas.size[::-1], 0.55, np.float32)
        stream = self._stage.stream(f"texture/{part.name}")
        mask = mask_of(part, canvas)
        value = shade(material.shade, mask, canvas, material.texture, weather.direction, stream)
        if part.name == "sun":
            behind = self._sky_behind(number, canvas)
            disc = rgb("fffaee").astype(np.float32)
            soft = np.clip(cv2.distanceTransform(mask, cv2.DIST_L2, 5) / (0.012 * canvas.density), 0, 1)[..., None]
            return np.maximum(behind, behind + soft * (disc - behind)), value
        grain = texture(material.texture, canvas, stream)
        owner = self._stage.stream(f"tint/{part.name.split('/')[0]}/{part.material_name}")
        albedo = rgb(material.colours["photo"]) * owner.uniform(0.94, 1.06)
        lit = (1 + 1.5 * material.amplitude * grain) * (0.42 + 1.06 * value)
        colour = lit[..., None] * (albedo * weather.colour).astype(np.float32)
        if material.texture == "foliage":
            hue = canvas.noise(stream, 7, 7)[..., None] * np.array([1, 0.6, -0.4], np.float32)
            colour *= 1 + 0.10 * hue
        if part.haze:
            colour += part.haze * (rgb(weather.light.haze).astype(np.float32) - colour)
        if material.semantic == "cloud":
            colour = self._soften_cloud(number, canvas, mask, colour, grain)
        return colour, value

    def _sky_behind(self, number: int, canvas: Canvas) -> np.ndarray:
        """Return the blurred sky (H, W, 3) behind the part's tile in the middle frame."""
        middle = len(self._stage.time) // 2
        offset = self._stage.poses[number][middle, :2, 2]
        sky = self._sky_canvas
        shift = (canvas.origin + offset - sky.origin) * sky.density
        scale = sky.density / canvas.density
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(self._soft_sky, matrix, canvas.size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def _soften_cloud(
        self, number: int, canvas: Canvas, mask: np.ndarray, colour: np.ndarray, grain: np.ndarray
    ) -> np.ndarray:
        """Fade a cloud's colour towards the sky at its outline: soft in the photo, sharp in the label map."""
        fine = self._stage.stream(f"cloud-edge/{number}")
        wisps = 0.5 * grain + 0.5 * canvas.noise(fine, 4, 2.5)
        depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5) / (0.040 * canvas.density)
        edge = np.clip(depth * 1.5, 0, 1)
        opacity = np.clip(1.2 * depth + 0.70 * wisps, 0, 1) * edge
        # A cloud in front of the sun is bright and opaque, since its faded edge would cut a hole into the disc.
        place = self._stage.poses[number][len(self._stage.time) // 2, :2, 2]
        x, y = canvas.coordinates()
        far = np.hypot(x + place[0] - self._sky["sun_x"], y + place[1] - self._sky["sun_y"])
        near = np.clip(1.9 - far / 0.055, 0, 1).astype(np.float32)
        colour = colour + near[..., None] * 0.7 * (rgb("fff8ec").astype(np.float32) - colour)
        opacity = np.maximum(opacity, near)
        return colour * opacity[..., None] + self._sky_behind(number, canvas) * (1 - opacity[..., None])


def _shelves(sizes: list[tuple[int, int]], width: int) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Pack (width, height) tiles on shelves, tallest first; return their corners (row, column) and the shape."""
    width = max(width, max(size[0] for size in sizes))
    places: list[tuple[int, int]] = [(0, 0)] * len(sizes)
    row = column = shelf = 0
    for number in sorted(range(len(sizes)), key=lambda n: -sizes[n][1]):
        wide, tall = sizes[number]
        if column + wide > width:
            row, column, shelf = row + shelf, 0, 0
        places[number] = (row, column)
        column, shelf = column + wide, max(shelf, tall)
    return places, (row + shelf, width)
