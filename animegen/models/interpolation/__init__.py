"""Animation frame interpolation: the frames between two frames."""

from animegen.models.interpolation.module import FrameInterpolation

__all__ = ["FrameInterpolation"]
