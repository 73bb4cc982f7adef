"""ToonWorld, the generated world: the same animated geometry as a photo and as anime, with exact truth."""

from animegen.data.toonworld.film import Film
from animegen.data.toonworld.palettes import LOOKS, SEMANTIC_CLASSES, STYLES
from animegen.data.toonworld.scene import SPLITS, VERSION, Scene
from animegen.data.toonworld.source import ToonWorldClips, ToonWorldImages, draw
from animegen.data.toonworld.truth import BORDER, HIDDEN, VISIBLE

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
