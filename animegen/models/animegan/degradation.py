"""The degradation of :mod:`animegen.nn.degradation`, under the name that configurations and checkpoints know."""

from animegen.nn.degradation import PhotoDegradation, blurred, without_lines

__all__ = ["PhotoDegradation", "blurred", "without_lines"]
