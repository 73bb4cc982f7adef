"""Few-shot patch-based video-to-video: a look learnt from a few drawn key frames of a clip."""

from animegen.models.fewshot.module import FewShot

__all__ = ["FewShot"]
