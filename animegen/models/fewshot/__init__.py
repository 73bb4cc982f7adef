"""Few-shot patch-based video stylization: the style of a clip learned from a few painted key frames."""

from animegen.models.fewshot.module import FewShot

__all__ = ["FewShot"]
