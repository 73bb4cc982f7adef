"""Film to anime with a memory: steady in time, in the style of stills."""

from animegen.models.temporal.module import TemporalAnime

__all__ = ["TemporalAnime"]
