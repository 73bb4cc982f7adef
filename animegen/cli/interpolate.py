"""``animegen interpolate``: the frames between images, or between the frames of a video."""

from __future__ import annotations

from animegen.cli.command import command
from animegen.cli.process import first_imports
from animegen.inference.options import InterpolateOptions


@command(InterpolateOptions)
def main(options: InterpolateOptions) -> int:
    """Print the results; exit code 1 if something could not be read."""
    with first_imports():
        from animegen.inference.interpolate import interpolate

    done = interpolate(options)
    print(done)
    return 1 if done.problems else 0
