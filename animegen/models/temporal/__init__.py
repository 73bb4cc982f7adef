"""Video stylization with a recurrent memory, temporally consistent, in the style of reference images."""

from animegen.models.temporal.film import FilmStyliser
from animegen.models.temporal.module import TemporalAnime

__all__ = ["FilmStyliser", "TemporalAnime"]
