"""Networks of the temporal family."""

from animegen.models.temporal.networks.film import FilmGenerator
from animegen.models.temporal.networks.generator import TemporalGenerator
from animegen.models.temporal.networks.state import Style, TemporalState
from animegen.models.temporal.networks.style import AdaNorm, FusionBlock, StyleEncoder, blend_styles

__all__ = [
    "AdaNorm",
    "FilmGenerator",
    "FusionBlock",
    "Style",
    "StyleEncoder",
    "TemporalGenerator",
    "TemporalState",
    "blend_styles",
]
