"""ToonWorld: synthetic animated scenes, rendered as photo and as anime, with exact ground truth."""

from animegen.toonworld.film import Film
from animegen.toonworld.palettes import LOOKS, SEMANTIC_CLASSES, STYLES
from animegen.toonworld.scene import SPLITS, VERSION, Scene
from animegen.toonworld.source import ToonWorldClips, ToonWorldImages, draw
from animegen.toonworld.truth import BORDER, HIDDEN, VISIBLE

__all__ = [
    "BORDER",
    "HIDDEN",
    "LOOKS",
    "SEMANTIC_CLASSES",
    "SPLITS",
    "STYLES",
    "VERSION",
    "VISIBLE",
    "Film",
    "Scene",
    "ToonWorldClips",
    "ToonWorldImages",
    "draw",
]
