"""Rasterisation of part numbers, and the anime look.

A frame is rasterised once with 9x9 samples per pixel. Every third sample in each direction is used for the looks, every
ninth (the pixel centre) for the ground truth, which therefore agree exactly.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from animegen.toonworld.palettes import STYLE_TABLE, rgb
from animegen.toonworld.stage import Stage

FINE = 9  # raster samples per pixel side
COARSE = 3  # shading samples per pixel side
SHIFT = 4  # fractional bits of OpenCV's polygon coordinates


class Outlines:
    """The vertices of all parts in one array, transformed by one product per frame."""

    def __init__(self, polygons_of_parts: list[tuple[np.ndarray, ...]]) -> None:
        self.vertices = np.concatenate([polygon for polygons in polygons_of_parts for polygon in polygons])
        counts = [sum(len(polygon) for polygon in polygons) for polygons in polygons_of_parts]
        self.part_of_vertex = np.repeat(np.arange(len(counts)), counts)
        self.first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
        self.cuts: list[list[slice]] = []
        start = 0
        for polygons in polygons_of_parts:
            slices = []
            for polygon in polygons:
                slices.append(slice(start, start + len(polygon)))
                start += len(polygon)
            self.cuts.append(slices)

    def fill(self, poses: np.ndarray, values: np.ndarray, shape: tuple[int, int], samples: int) -> np.ndarray:
        """Fill the parts in order with ``values[k]`` on a raster of ``samples`` x ``samples`` per pixel.

        ``poses`` (P, 3, 3) map local coordinates to pixels (pixel centres at integers + 1/2). Returns
        (H * samples, W * samples) uint8, 0 outside all parts.
        """
        height, width = shape
        image = np.zeros((height * samples, width * samples), np.uint8)
        matrix = poses[self.part_of_vertex, :2]
        pixels = (matrix[:, :, :2] * self.vertices[:, None]).sum(2) + matrix[:, :, 2]
        low = np.minimum.reduceat(pixels, self.first)
        high = np.maximum.reduceat(pixels, self.first)
        inside = (high > 0).all(1) & (low < [width, height]).all(1)
        # Sample centres are at half-integers, OpenCV's at integers.
        one = 1 << SHIFT
        fixed = np.rint(pixels * (samples * one) - one // 2).astype(np.int32)
        for part in np.flatnonzero(inside):
            cv2.fillPoly(image, [fixed[cut] for cut in self.cuts[part]], int(values[part]), cv2.LINE_8, SHIFT)
        return image


def look_up(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return ``table[labels]`` for uint8 labels; short tables are padded with their first entry."""
    full = np.full(256, table[0], table.dtype)
    full[: len(table)] = table
    return cv2.LUT(labels, full[None])


class StyleTable:
    """Frame-independent tables of a style: colours, ink ranks, tone steps, ink stamp."""

    def __init__(self, style: str, stage: Stage, height: int) -> None:
        spec = STYLE_TABLE[style]
        tint, light = rgb(spec.shadow) / 255, rgb(spec.light)
        count = len(spec.thresholds) + 1
        colours = np.zeros((256, 4, 4), np.uint8)
        colours[..., 3] = 255
        for number, part in enumerate(stage.parts):
            base = rgb(part.material.colours[style])
            base = base + part.haze * spec.haze_share * (rgb(spec.haze) - base)
            tones = [base] * 4
            if part.material.shade != "flat":
                tones[0] = base * tint
                if count == 3:
                    tones[2] = base + spec.light_share * (light - base)
            colours[number, :, :3] = np.rint(tones)
        colours[255, :, :3] = rgb(spec.ink)
        self.colours = colours.reshape(-1, 4).view(np.uint32)[:, 0]
        self.tones = np.searchsorted(np.array(spec.thresholds) * 255, np.arange(256), side="right").astype(np.uint8)
        self.ranks = _ink_ranks(stage, spec.unlined)
        # Relative to a sample's centre; the outline is half a sample before the first sample of the part behind.
        radius = max(spec.ink_width * (height / 128) ** 0.75 * COARSE - 0.5, 1.0)
        reach = int(radius)
        yy, xx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        self.stamp = (xx**2 + yy**2 <= radius**2).astype(np.uint8)


def _ink_ranks(stage: Stage, unlined: frozenset[str]) -> np.ndarray:
    """Return the ink rank of every part: its group's index in drawing order, 0 if the style does not outline it."""
    last: dict[str, int] = {}
    for number, part in enumerate(stage.parts):
        last[part.group] = number
    order = {group: rank for rank, group in enumerate(sorted(last, key=last.__getitem__), start=1)}
    ranks = [0 if part.material.semantic in unlined else order[part.group] for part in stage.parts]
    return np.array(ranks, np.uint8)


def ink_mask(labels: np.ndarray, table: StyleTable) -> np.ndarray:
    """Return the mask of ink samples: those inside a part and within the pen's radius of a part of lower rank."""
    ranks = look_up(labels, table.ranks)
    return cv2.erode(ranks, table.stamp) != ranks


def anime(
    labels: np.ndarray, shades: np.ndarray, table: StyleTable, sky: np.ndarray, sky_to_sample: np.ndarray
) -> np.ndarray:
    """Return an anime frame (H, W, 3) uint8 from 3x labels and shades (both (3H, 3W) uint8).

    ``sky`` is the style's painting (h, w, 4); ``sky_to_sample`` (2, 3) maps its texels to samples.
    """
    index: Any = 4 * labels.astype(np.uint16) + cv2.LUT(shades, table.tones[None])
    colour = table.colours.take(index)
    is_sky = labels == 0
    rows = np.flatnonzero(is_sky.any(1))
    if len(rows):
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        matrix = sky_to_sample.copy()
        matrix[1, 2] -= top
        size = (labels.shape[1], bottom - top)
        painting = cv2.warpAffine(sky, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(colour[top:bottom], painting.view(np.uint32)[..., 0], where=is_sky[top:bottom])
    np.copyto(colour, table.colours[-1], where=ink_mask(labels, table))
    return shrink(colour.view(np.uint8).reshape(*labels.shape, 4))


def shrink(samples: np.ndarray) -> np.ndarray:
    """Average 3x3 samples of an RGBA image and drop A: (3H, 3W, 4) to (H, W, 3) uint8."""
    # Subsampling a box blur equals area averaging exactly and is several times faster than cv2.resize.
    blurred = cv2.blur(samples, (COARSE, COARSE))
    middle = np.ascontiguousarray(blurred.view(np.uint32)[1::COARSE, 1::COARSE, 0])
    return cv2.cvtColor(middle.view(np.uint8).reshape(*middle.shape, 4), cv2.COLOR_RGBA2RGB)


def shrink_mask(samples: np.ndarray) -> np.ndarray:
    """Average 3x3 samples of a mask: (3H, 3W) to (H, W) uint8."""
    return np.ascontiguousarray(cv2.blur(samples, (COARSE, COARSE))[1::COARSE, 1::COARSE])
