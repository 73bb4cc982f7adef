"""Speed of ToonWorld on one core; run as ``python -m animegen.speed.toonworld``."""

from __future__ import annotations

import argparse
import time

import cv2

from animegen.toonworld.palettes import STYLES
from animegen.toonworld.scene import Scene

CLIP = 48


def _draw_clip(scene: Scene, styles: tuple[str, ...], both_flows: bool) -> None:
    """Draw a whole clip with its truth, frame after frame."""
    for t in range(CLIP):
        scene.photo(t)
        for style in styles:
            scene.anime(t, style)
        scene.labels(t)
        if t:
            scene.flow(t, t - 1)
            scene.visibility(t, t - 1)
            if both_flows:
                scene.flow(t - 1, t)
                scene.visibility(t - 1, t)


def measure(size: int, seconds: float) -> dict[str, float]:
    """Measure drawing speed at ``size`` pixels for about ``seconds`` of processor time per kind of frame.

    Processor time of this process on one OpenCV thread, so that other work on the machine does not count. Returns
    frames per second with the scene's build spread over its clip of 48 frames: ``one_style`` (photo, one style,
    flow and visibility to the previous frame, labels) and ``all_styles`` (photo, three styles, flow and visibility
    both ways, labels), the same without the build as ``one_style_drawing`` and ``all_styles_drawing``, and
    ``build_ms`` for a scene with one style and its atlas.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        _draw_clip(Scene(index=0, size=size, frames=CLIP), STYLES[:1], both_flows=False)  # first calls load code
        result: dict[str, float] = {}
        for name, styles, both in (("one_style", STYLES[:1], False), ("all_styles", STYLES, True)):
            building = drawing = 0.0
            clips = 0
            while building + drawing < seconds:
                start = time.process_time()
                scene = Scene(index=clips, size=size, frames=CLIP)
                scene.prepare(styles)
                built = time.process_time()
                _draw_clip(scene, styles, both)
                drawing += time.process_time() - built
                building += built - start
                clips += 1
            result[name] = clips * CLIP / (building + drawing)
            result[f"{name}_drawing"] = clips * CLIP / drawing
            if name == "one_style":
                result["build_ms"] = 1000 * building / clips
        return result
    finally:
        cv2.setNumThreads(threads)


def main() -> None:
    """Print the speeds for the sizes on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[128, 256])
    parser.add_argument("--seconds", type=float, default=4.0, help="processor time per kind of frame")
    options = parser.parse_args()
    for size in options.sizes:
        numbers = measure(size, options.seconds)
        print(f"{size} px: " + ", ".join(f"{name} {value:.1f}" for name, value in numbers.items()))


if __name__ == "__main__":
    main()
