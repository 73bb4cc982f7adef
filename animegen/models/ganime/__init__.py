"""GANime: a tokenizer of frames, and a transformer that draws the codes between a first and a last frame."""

from animegen.models.ganime.module import Ganime

__all__ = ["Ganime"]
