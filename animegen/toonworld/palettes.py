"""Colours and styles. A new style needs a column in ``MATERIALS``, a ``Style`` and a sky painter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STYLES = ("meadow", "dusk", "print")
LOOKS = ("photo", *STYLES)

SEMANTIC_CLASSES = (
    "sky",
    "cloud",
    "sun",
    "mountain",
    "hill",
    "building",
    "ground",
    "tree",
    "hair",
    "skin",
    "eye",
    "mouth",
    "clothes",
    "shoe",
    "ball",
)


def rgb(colour: str) -> np.ndarray:
    """Return the (3,) float64 values in [0, 255] of a hex colour such as ``"4f8fdc"``."""
    return np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], dtype=float)


@dataclass(frozen=True)
class Material:
    """Material of a part: colour in each look, semantic class, photo texture and shading.

    ``shade``: "cushion" (rounded), "ground" (slow noise), "wall" (horizontal ramp) or "flat" (unlit; one tone in every
    style).
    """

    colours: dict[str, str]
    semantic: str
    texture: str = "none"
    amplitude: float = 0.0
    shade: str = "cushion"


def _material(
    colours: str, semantic: str, texture: str = "none", amplitude: float = 0.0, shade: str = "cushion"
) -> Material:
    return Material(dict(zip(LOOKS, colours.split(), strict=True)), semantic, texture, amplitude, shade)


# Columns: photo albedo, meadow, dusk, print.
MATERIALS: dict[str, Material] = {
    "sky": _material("8fbbe6 8fd4f8 c85aa8 f3e3bd", "sky", shade="flat"),
    "sun": _material("fffaf0 fff3b0 fff0a0 d6402b", "sun", shade="flat"),
    "cloud": _material("e6e8ec ffffff ffc8b8 fff6e0", "cloud", "cloud", 0.05),
    "mountain": _material("6d7480 a8c4d8 a87ac0 c9c3ae", "mountain", "rock", 0.38),
    "hill_far": _material("5c7550 9ad08a 7a68b8 bcc79a", "hill", "foliage", 0.30),
    "hill_near": _material("5d7d42 7cbf5f 4a5a9a 9fb87a", "hill", "foliage", 0.36),
    "grass": _material("768c46 9fd06a 6a6fae cdd08a", "ground", "grass", 0.40, "ground"),
    "path": _material("9a8a70 e8d2a0 b98aa8 ead7a8", "ground", "ground", 0.30, "ground"),
    "wall_0": _material("b8a08a f0d8b8 c08ac8 ecd9b0", "building", "brick", 0.32, "wall"),
    "wall_1": _material("8a4f40 e08a6a d05f8a d0694a", "building", "brick", 0.32, "wall"),
    "wall_2": _material("8c9196 d0dce4 8f8fd8 b8c4bc", "building", "brick", 0.32, "wall"),
    "roof": _material("6a3a32 c8604a 7a3fa0 b0402e", "building", "brick", 0.20, "wall"),
    "glass": _material("5a6e80 8fd0e8 ffd98a 6f98a0", "building", shade="flat"),
    "trunk": _material("5a4432 8f6648 5a3560 5a4438", "tree", "bark", 0.5),
    "leaf_0": _material("557d38 5fae4a 2f6f8f 6f9a5a", "tree", "foliage", 0.46),
    "leaf_1": _material("8a6a2a f0a840 f07a6a e0903a", "tree", "foliage", 0.46),
    "leaf_2": _material("b0808f ffb8cc ff8fc0 eda0a0", "tree", "foliage", 0.46),
    "skin_0": _material("d9a98c ffdcc2 ffc2a8 f6dcb8", "skin", "skin", 0.05),
    "skin_1": _material("b77f5f e8b48c e79a80 e3b98a", "skin", "skin", 0.05),
    "skin_2": _material("8a5a3f b9815a b56a5c b98a5e", "skin", "skin", 0.05),
    "hair_0": _material("2e2622 4a3a3a 3b2a55 1d1d26", "hair", "hair", 0.5),
    "hair_1": _material("6b4423 9c5f2e 8a3f5a c8452f", "hair", "hair", 0.5),
    "hair_2": _material("b08a4a f2c84b ffb347 efc34a", "hair", "hair", 0.5),
    "hair_3": _material("7a2f24 d9523a e0355f c8452f", "hair", "hair", 0.5),
    "hair_4": _material("4a5a78 6f9bd8 4f6bdc 2f6f8f", "hair", "hair", 0.5),
    "cloth_0": _material("9a2f2c e5554e ff4f79 d6402b", "clothes", "cloth", 0.34),
    "cloth_1": _material("2f4f86 4f8fdc 4658d8 2b6f94", "clothes", "cloth", 0.34),
    "cloth_2": _material("c9a23c ffd65c ffb84d efc34a", "clothes", "cloth", 0.34),
    "cloth_3": _material("d5d2ca fdf8ec f3d9ee f8efd8", "clothes", "cloth", 0.34),
    "cloth_4": _material("3f6d4a 63b56f 2fa596 5f9a78", "clothes", "cloth", 0.34),
    "cloth_5": _material("6a4a78 a978c8 8a4fd0 7a5a86", "clothes", "cloth", 0.34),
    "denim": _material("3b4a63 5a76a8 3a3f8f 34495e", "clothes", "cloth", 0.34),
    "khaki": _material("85765a c2a878 b07a88 c9ad7c", "clothes", "cloth", 0.34),
    "shoe": _material("4a3a32 7d5a4a 5a2f5f 2a2a33", "shoe", "skin", 0.1),
    "iris_0": _material("4a3424 7a4a2a 7a2f6f 26262e", "eye", shade="flat"),
    "iris_1": _material("3a6a8a 3f8fd0 3fb0ff 26262e", "eye", shade="flat"),
    "iris_2": _material("4a7a4a 4faf5f 2fd0a8 26262e", "eye", shade="flat"),
    "eye_white": _material("e8e4de ffffff fff2f6 fdf6e3", "eye", shade="flat"),
    "eye_dark": _material("221c1a 3b2b2b 2a1838 17171d", "eye", shade="flat"),
    "mouth": _material("8a3a3a c8564e d03a5f c23a28", "mouth", shade="flat"),
    "ball": _material("b83a30 ff5a4a ff3f7f d6402b", "ball", "skin", 0.05),
    "stripe": _material("d8d4c8 fff6e6 ffe8d0 fff6e0", "ball", "skin", 0.05),
}


@dataclass(frozen=True)
class Style:
    """Parameters of an anime style.

    ``thresholds`` quantise the shade value in [0, 1] to tones from dark to light; the darkest is the base colour times
    ``shadow``, the third is blended with ``light`` by ``light_share``. ``ink_width`` is in pixels at a height of 128.
    Distant parts are blended with ``haze`` by ``haze_share`` times the photo's haze.
    """

    thresholds: tuple[float, ...]
    shadow: str
    ink: str
    ink_width: float
    unlined: frozenset[str]
    sky: tuple[str, str, str]
    haze: str
    haze_share: float
    light: str = "ffffff"
    light_share: float = 0.0


STYLE_TABLE: dict[str, Style] = {
    "meadow": Style(
        thresholds=(0.40,),
        shadow="b8b4dc",
        ink="4a3428",
        ink_width=1.0,
        unlined=frozenset({"sky", "sun", "cloud", "mountain", "hill", "building"}),
        sky=("3f9fe8", "8fd4f8", "e8f6e8"),
        haze="8fd4f8",
        haze_share=0.55,
    ),
    "dusk": Style(
        thresholds=(0.36, 0.74),
        shadow="9a78c4",
        ink="2a1440",
        ink_width=0.8,
        unlined=frozenset({"sky", "sun", "cloud"}),
        sky=("4a3a9a", "c85aa8", "ffb070"),
        haze="ffb070",
        haze_share=0.55,
        light="ffe0a8",
        light_share=0.32,
    ),
    "print": Style(
        thresholds=(0.30,),
        shadow="a8b0a0",
        ink="16161c",
        ink_width=1.7,
        unlined=frozenset({"sky"}),
        sky=("e8d6a6", "f3e3bd", "f3e3bd"),
        haze="f3e3bd",
        haze_share=0.35,
    ),
}


@dataclass(frozen=True)
class Light:
    """Light of the photo: its colour, three colour stops of the sky (top, middle, horizon) and the haze colour."""

    colour: tuple[float, float, float]
    sky: tuple[str, str, str]
    haze: str


LIGHTS: dict[str, Light] = {
    "noon": Light((1.03, 1.0, 0.95), ("2f6cbc", "8fbbe6", "dbe7ee"), "b8cfe6"),
    "morning": Light((1.1, 1.0, 0.9), ("6a9acc", "c8d8e4", "f2e6d2"), "e0d6c8"),
    "evening": Light((1.18 * 0.95, 0.95 * 0.95, 0.76 * 0.95), ("5a6aa0", "e0a888", "f6cf9a"), "e6b48a"),
    "overcast": Light((0.92 * 0.82, 0.98 * 0.82, 1.06 * 0.82), ("8d99a6", "b4bec6", "ccd2d4"), "c2c8cc"),
}
