"""Skies of the photo and of each style, as functions of the sky's local coordinates."""

from __future__ import annotations

import numpy as np

from animegen.toonworld.palettes import STYLE_TABLE, Light
from animegen.toonworld.palettes import rgb as exact_rgb
from animegen.toonworld.streams import Stream
from animegen.toonworld.textures import Canvas

TOP = -0.50  # y of the sky's first colour stop, in frame heights
WHITE = np.full(3, 255, np.float32)


def _rgb(colour: str) -> np.ndarray:
    return exact_rgb(colour).astype(np.float32)


def _three_stops(stops: tuple[str, str, str], height: np.ndarray) -> np.ndarray:
    """Return the colours (..., 3) of a gradient at ``height`` from 0 (top stop) to 1 (horizon stop)."""
    colours = np.stack([exact_rgb(stop) for stop in stops])
    return np.stack([np.interp(height, [0, 0.55, 1], colours[:, c]) for c in range(3)], -1).astype(np.float32)


def _soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """Return an anti-aliased step from 0 to 1 at ``distance`` 0, of the given width."""
    return np.clip(distance / width + 0.5, 0, 1)


def photo_sky(canvas: Canvas, light: Light, sky: dict[str, float], stream: Stream) -> np.ndarray:
    """Return the photo's sky (H, W, 3) in [0, 255]: a gradient, cirrus, and a glow around the sun."""
    x, y = canvas.coordinates()
    height = (y - TOP) / (sky["horizon"] - TOP)
    colour = np.repeat(_three_stops(light.sky, np.clip(height[:, 0], 0, 1))[:, None], canvas.size[0], 1)
    cirrus = 0.6 * canvas.noise(stream, 30, 9) + 0.4 * canvas.noise(stream, 11, 4) + 0.2 * canvas.noise(stream, 4, 2)
    veil = 0.30 * np.clip(cirrus + 0.1, 0, 1)[..., None]
    colour = colour * (1 - veil) + _rgb("f0f2f6") * np.array(light.colour, np.float32) * veil
    far = np.hypot(x - sky["sun_x"], y - sky["sun_y"])
    glow = (0.55 * np.exp(-far / 0.10) + 0.25 * np.exp(-far / 0.30))[..., None]
    return np.clip(colour + glow * (_rgb("fff6e2") - colour), 0, 255).astype(np.float32)


def painted_sky(style: str, canvas: Canvas, sky: dict[str, float], stream: Stream) -> np.ndarray:
    """Return the sky of a style (H, W, 3) in [0, 255]."""
    return PAINTERS[style](canvas, sky, stream)


def _meadow(canvas: Canvas, sky: dict[str, float], stream: Stream) -> np.ndarray:
    """A clear day: a gradient and two halos around the sun."""
    x, y = canvas.coordinates()
    height = (y - TOP) / (sky["horizon"] - TOP)
    colour = np.repeat(_three_stops(STYLE_TABLE["meadow"].sky, np.clip(height[:, 0], 0, 1))[:, None], canvas.size[0], 1)
    far = np.hypot(x - sky["sun_x"], y - sky["sun_y"])
    halo = 0.22 * _soft_step(0.125 - far, 1 / canvas.density) + 0.16 * _soft_step(0.20 - far, 1 / canvas.density)
    return colour + halo[..., None].astype(np.float32) * (WHITE - colour)


def _dusk(canvas: Canvas, sky: dict[str, float], stream: Stream) -> np.ndarray:
    """An evening: seven wavy bands, and a glow around the sun."""
    x, y = canvas.coordinates()
    phase, phase2 = stream.uniform(0, 6), stream.uniform(0, 6)
    wave = 0.010 * np.sin(9 * x + phase) + 0.006 * np.sin(21 * x + phase2)
    height = (y + wave - TOP) / (sky["horizon"] - TOP) * 7
    bands = _three_stops(STYLE_TABLE["dusk"].sky, np.arange(7) / 6)
    colour = np.repeat(bands[:1][None], canvas.size[1], 0).repeat(canvas.size[0], 1)
    edge = 7 / (sky["horizon"] - TOP) / canvas.density
    for band in range(1, 7):
        colour += _soft_step(height - band, edge)[..., None] * (bands[band] - bands[band - 1])
    far = np.hypot(x - sky["sun_x"], y - sky["sun_y"])
    glow = (0.55 * np.exp(-((far / 0.17) ** 2)))[..., None]
    return (colour + glow * (_rgb("ffd08a") - colour)).astype(np.float32)


def _print(canvas: Canvas, sky: dict[str, float], stream: Stream) -> np.ndarray:
    """A poster: twenty-two rays from the sun."""
    x, y = canvas.coordinates()
    dx, dy = x - sky["sun_x"], y - sky["sun_y"]
    far = np.hypot(dx, dy)
    height = np.clip((y - TOP) / (sky["horizon"] - TOP), 0, 1)
    paper = np.repeat(_three_stops(STYLE_TABLE["print"].sky, height[:, 0])[:, None], canvas.size[0], 1)
    spoke = (np.arctan2(dy, dx) / (2 * np.pi) + stream.uniform()) * 22 % 1
    from_edge = 0.25 - np.abs(spoke - 0.5)
    ray = _soft_step(from_edge * 2 * np.pi * far / 22, 1 / canvas.density)
    return (paper + ray[..., None] * (_rgb("ecca90") - paper)).astype(np.float32)


PAINTERS = {"meadow": _meadow, "dusk": _dusk, "print": _print}
