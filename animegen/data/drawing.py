"""Drawings computed from photos: flat areas and ink lines, the truth of supervised training.

A network that learns these filters draws faster, on any device, in tiles, without their iterations and with fewer of
their artefacts, and starts training on a style of one's own.

Sources: Xu, Lu, Xu, Jia, "Image smoothing via L0 gradient minimization", 2011 (flat areas); Kang, Lee, Chui, "Coherent
line drawing", 2007, and Winnemöller, Kyprianidis, Olsen, "XDoG", 2012 (lines); Kyprianidis, Kang, "Image and video
abstraction by coherence-enhancing filtering", 2011 (paint).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from animegen.data.sources import ImageSource, load, next_good
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError, did_you_mean
from animegen.nn.filters import l0_smooth

Array = np.ndarray

#: Standard deviation (pixels) and weight of each difference of Gaussians: fine lines and outlines, or a thin pencil.
_INK_LINES, _PENCIL_LINES = ((0.7, 1.2), (1.3, 1.0)), ((0.9, 1.0),)
_RATIO = 1.6  # of the two Gaussians of a difference, which then approximates the Laplacian
_THRESHOLD, _SLOPE = 0.010, 70.0  # lightness (0 to 1) at which a line starts, and opacity per lightness beyond it
_STRENGTH = 0.003  # of the L0 smoothing
_RANGE = (0.015, 0.985)  # of a drawing
_SKIES, _GREENS = 265.0, 125.0  # hues in CIELAB, in degrees


def cel(photo: Tensor) -> Tensor:
    """Draw a photo as a cel: flat areas in the photo's own colours, slightly more saturated, with dark outlines.

    Args:
        photo: uint8 (3,H,W), RGB. Lines are two to three pixels wide whatever its size.

    Returns:
        uint8 (3,H,W).
    """
    image, denoised = _read(photo)
    lab = _lab(_flatten(denoised))
    lightness = (lab[..., 0] / 100).clip(0, 1)
    lab[..., 0] = 100 * (lightness + 0.12 * _midtones(lightness))
    lab[..., 1:] *= 1.2
    return _ink(_rgb(lab), ink_lines(image, denoised), colour=(0.25, 0.25, 0.25))


def meadow(photo: Tensor) -> Tensor:
    """Draw a photo as a summer's background: a cel whose greens are fresh, skies clear, shades blue and lights glow.

    Colours are changed by their hue alone. Skin, wood and other warm hues stay. Shapes as in :func:`cel`.
    """
    image, denoised = _read(photo)
    lab = _lab(_flatten(denoised))
    lightness, chroma = (lab[..., 0] / 100).clip(0, 1), np.hypot(lab[..., 1], lab[..., 2])
    hue = np.degrees(np.arctan2(lab[..., 2], lab[..., 1])) % 360
    coloured = (chroma / 12).clip(0, 1)  # grey has no hue
    greens, skies = _near(hue, _GREENS, 32) * coloured, _near(hue, _SKIES, 28) * coloured
    # Green turns to yellow in the light and to blue in the shade.
    hue += greens * ((_GREENS + 5 - hue) / 2 + 14 - 26 * lightness) - 6 * skies
    chroma = chroma * (1.15 + 0.35 * greens + 0.2 * skies) + 5 * (greens + skies)
    lightness += 0.10 * _midtones(lightness) + (0.06 * greens + 0.05 * skies) * np.sin(np.pi * lightness)
    shade = (1 - lightness) ** 2 * (1 - 0.7 * coloured)
    angle = np.radians(hue)
    areas = _rgb(
        np.stack([100 * lightness, chroma * np.cos(angle) + 2 * shade, chroma * np.sin(angle) - 9 * shade], -1)
    )
    light = (4 * (areas.mean(-1, keepdims=True) - 0.75)).clip(0, 1) * areas
    areas = 1 - (1 - areas) * (1 - 0.22 * cv2.GaussianBlur(light, (0, 0), 8))
    return _ink(areas, ink_lines(image, denoised), colour=(0.25, 0.23, 0.30))


def painted(photo: Tensor) -> Tensor:
    """Paint a photo: soft areas brushed along the edges, warm lights, cool shades, thin brown lines.

    Shapes as in :func:`cel`.
    """
    image, denoised = _read(photo)
    paint = cv2.bilateralFilter(image, d=7, sigmaColor=0.1, sigmaSpace=3)
    for _ in range(2):
        tangents = edge_tangents(_lab(paint)[..., 0] / 100, 2.5)
        channels = [smooth_along(np.ascontiguousarray(paint[..., channel]), tangents, 4.0) for channel in range(3)]
        paint = _shock(np.stack(channels, -1))
    lab = _lab(paint)
    lightness = (lab[..., 0] / 100).clip(0, 1)
    lightness = 0.07 + 0.92 * lightness + 0.10 * _midtones(lightness)
    warmth = (2 * lightness - 1).clip(-1, 1)
    lab[..., 0] = 100 * lightness
    lab[..., 1:] *= 1.15
    lab[..., 1] += 1.5
    lab[..., 2] += 2 + np.where(warmth > 0, 7, 10) * warmth
    return _ink(_rgb(lab), 0.85 * ink_lines(image, denoised, _PENCIL_LINES), colour=(0.36, 0.26, 0.24))


def ink(photo: Tensor) -> Tensor:
    """Draw the lines of :func:`cel` alone, black on white. Shapes as there."""
    return _lines_alone(photo, _INK_LINES)


def pencil(photo: Tensor) -> Tensor:
    """Draw the lines of :func:`painted` alone, black on white. Shapes as there."""
    return _lines_alone(photo, _PENCIL_LINES)


def ink_lines(image: Array, denoised: Array, lines: tuple[tuple[float, float], ...] = _INK_LINES) -> Array:
    """Return the opacity of ink lines in [0,1], (H,W): where a photo is darker than its surroundings along an edge.

    Args:
        image: float32 (H,W,3) RGB in [0,1]; gives the fine lines.
        denoised: the same without noise; gives the outlines.
        lines: standard deviation (pixels) and weight of each kind of line.
    """
    darkness = np.zeros(image.shape[:2], np.float32)
    for sigma, weight in lines:
        lightness = _lab(image if sigma < 1 else denoised)[..., 0] / 100
        difference = cv2.GaussianBlur(lightness, (0, 0), _RATIO * sigma) - cv2.GaussianBlur(lightness, (0, 0), sigma)
        difference = smooth_along(difference, edge_tangents(lightness), 2 + 2 * sigma)
        darkness = np.maximum(darkness, weight * difference)
    return ((darkness - _THRESHOLD) * _SLOPE).clip(0, 1)


def edge_tangents(lightness: Array, sigma: float = 2.0) -> Array:
    """Return the unit direction along the local edge at each pixel, (H,W,2) as (x, y).

    It is the eigenvector with the smaller eigenvalue of the structure tensor, which is smoothed with ``sigma``.
    """
    dx, dy = (cv2.Sobel(lightness, cv2.CV_32F, *order) / 8 for order in ((1, 0), (0, 1)))
    xx, xy, yy = (cv2.GaussianBlur(product, (0, 0), sigma) for product in (dx * dx, dx * dy, dy * dy))
    largest = (xx + yy + np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 2
    direction = np.stack([largest - xx, -xy], -1)
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.where(length > 1e-8, direction / np.maximum(length, 1e-8), np.array([0, 1], np.float32))


def smooth_along(image: Array, tangents: Array, sigma: float) -> Array:
    """Blur an image (H,W) along the curves that follow ``tangents``, by a Gaussian of ``sigma`` pixels."""
    rows, columns = (grid.astype(np.float32) for grid in np.indices(image.shape))
    total, weights = image.copy(), 1.0
    for sign in (1, -1):
        x, y, direction = columns.copy(), rows.copy(), sign * tangents
        for step in range(1, int(np.ceil(2 * sigma)) + 1):
            x, y = x + direction[..., 0], y + direction[..., 1]
            there = cv2.remap(tangents, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
            # A tangent has no sign: keep going the way we came.
            direction = np.where((there * direction).sum(-1, keepdims=True) < 0, -there, there)
            weight = float(np.exp(-(step**2) / (2 * sigma**2)))
            total += weight * cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            weights += weight
    return total / weights


def _flatten(image: Array) -> Array:
    batch = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    return (l0_smooth(batch, _STRENGTH, largest=1e4)[0].permute(1, 2, 0).numpy() + 1) / 2


def _shock(image: Array) -> Array:
    """Sharpen edges: take the lightest neighbour on the light side of an edge, the darkest on the other."""
    curvature = cv2.Laplacian(cv2.GaussianBlur(_lab(image)[..., 0] / 100, (0, 0), 1.2), cv2.CV_32F, ksize=3)[..., None]
    square = np.ones((3, 3), np.uint8)
    extreme = np.where(curvature < 0, cv2.dilate(image, square), cv2.erode(image, square))
    return image + 0.6 * (12 * np.abs(curvature)).clip(0, 1) * (extreme - image)


def _read(photo: Tensor) -> tuple[Array, Array]:
    """Return a photo as float32 (H,W,3) in [0,1], and without its noise."""
    image = photo.permute(1, 2, 0).numpy().astype(np.float32) / 255
    return image, cv2.bilateralFilter(image, d=7, sigmaColor=0.08, sigmaSpace=2.5)


def _lines_alone(photo: Tensor, lines: tuple[tuple[float, float], ...]) -> Tensor:
    image, denoised = _read(photo)
    return _ink(np.ones_like(image), ink_lines(image, denoised, lines), colour=(0, 0, 0), span=(0, 1))


def _ink(areas: Array, ink: Array, colour: tuple[float, float, float], span: tuple[float, float] = _RANGE) -> Tensor:
    """Draw lines of opacity ``ink`` over ``areas``, which they multiply by ``colour``, as uint8 (3,H,W).

    ``span`` is the range of the output, so that by default no channel is clipped.
    """
    low, high = span
    drawn = low + (high - low) * areas * (1 - (1 - np.array(colour, np.float32)) * ink[..., None])
    return torch.from_numpy((drawn * 255).round().astype(np.uint8)).permute(2, 0, 1).contiguous()


def _midtones(lightness: Array) -> Array:
    return np.sin(np.pi * lightness) * (1 - lightness)


def _near(hue: Array, centre: float, width: float) -> Array:
    """Return 1 at a hue, less with the distance from it: a Gaussian. All in degrees."""
    return np.exp(-(((hue - centre + 180) % 360 - 180) ** 2) / (2 * width**2))


def _rgb(lab: Array) -> Array:
    return cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB).clip(0, 1)


def _lab(image: Array) -> Array:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2LAB)


DRAWINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "cel": cel,
    "meadow": meadow,
    "painted": painted,
    "ink": ink,
    "pencil": pencil,
}
"""Filters by the name of their look."""


class DrawnPhotos:
    """Drawings of the images of another source, computed on each access; keep them with
    :class:`~animegen.data.memory.InMemory`.

    Args:
        source: the photos.
        look: one of :data:`DRAWINGS`.
        size: shorter side in pixels to which a photo is scaled before it is drawn; that of the view.
    """

    def __init__(self, source: ImageSource, look: str = "cel", size: int = 448) -> None:
        if look not in DRAWINGS:
            raise AnimegenError(f"look={look} is unknown: use {', '.join(DRAWINGS)}.{did_you_mean(look, DRAWINGS)}")
        self.source, self.look, self.size = source, look, size

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """Return the name of the photo."""
        return self.source.name(index)

    def image(self, index: int) -> Tensor:
        """Return drawing ``index``, or the next one whose photo is good."""
        return next_good([self], index)[0]

    def load(self, index: int) -> Tensor | None:
        """Return drawing ``index``, or ``None`` if its photo is broken."""
        photo = load(self.source, index)
        return None if photo is None else DRAWINGS[self.look](scale_short_side(photo, self.size))
