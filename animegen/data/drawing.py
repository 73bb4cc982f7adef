"""Drawings computed from photos: flat areas and ink lines, the truth of supervised training.

A network that learns these filters draws faster, on any device, in tiles, without their iterations and with fewer of
their artefacts, and starts training on a style of one's own.

Sources: Xu, Lu, Xu, Jia, "Image smoothing via L0 gradient minimization", 2011 (flat areas); Kang, Lee, Chui, "Coherent
line drawing", 2007, and Winnemöller, Kyprianidis, Olsen, "XDoG", 2012 (lines).
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

#: Standard deviation (pixels) and weight of each difference of Gaussians: fine lines and outlines.
_LINES = ((0.7, 1.2), (1.3, 1.0))
_RATIO = 1.6  # of the two Gaussians of a difference, which then approximates the Laplacian
_THRESHOLD, _SLOPE = 0.010, 70.0  # lightness (0 to 1) at which a line starts, and opacity per lightness beyond it
_STRENGTH = 0.003  # of the L0 smoothing
_INK = 0.25  # lightness of a line relative to the area on which it lies
_SATURATION, _LIFT = 1.2, 0.12  # factor on chroma, and how far mid-tones are lightened
_RANGE = (0.015, 0.985)  # of the output, so that no channel is clipped


def cel(photo: Tensor) -> Tensor:
    """Draw a photo as a cel: flat areas in the photo's own colours, slightly more saturated, with dark outlines.

    Args:
        photo: uint8 (3,H,W), RGB. Lines are two to three pixels wide whatever its size.

    Returns:
        uint8 (3,H,W).
    """
    image = photo.permute(1, 2, 0).numpy().astype(np.float32) / 255
    denoised = cv2.bilateralFilter(image, d=7, sigmaColor=0.08, sigmaSpace=2.5)
    ink = ink_lines(image, denoised)[..., None]
    areas = _tone(_flatten(denoised))
    low, high = _RANGE
    drawn = low + (high - low) * areas * (1 - (1 - _INK) * ink)
    return torch.from_numpy((drawn * 255).round().astype(np.uint8)).permute(2, 0, 1).contiguous()


def ink_lines(image: Array, denoised: Array) -> Array:
    """Return the opacity of ink lines in [0,1], (H,W): where a photo is darker than its surroundings along an edge.

    Args:
        image: float32 (H,W,3) RGB in [0,1]; gives the fine lines.
        denoised: the same without noise; gives the outlines.
    """
    darkness = np.zeros(image.shape[:2], np.float32)
    for sigma, weight in _LINES:
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


def _tone(areas: Array) -> Array:
    """Raise saturation and mid-tones."""
    lab = _lab(areas)
    lightness = (lab[..., 0] / 100).clip(0, 1)
    lab[..., 0] = 100 * (lightness + _LIFT * np.sin(np.pi * lightness) * (1 - lightness))
    lab[..., 1:] *= _SATURATION
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).clip(0, 1)


def _lab(image: Array) -> Array:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2LAB)


DRAWINGS: dict[str, Callable[[Tensor], Tensor]] = {"cel": cel}
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
