"""Video stylization with a recurrent memory, temporally consistent, in the style of reference images."""

from animegen.models.temporal.module import TemporalAnime

__all__ = ["TemporalAnime"]
