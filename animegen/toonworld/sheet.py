"""Contact sheets and strips of ToonWorld: ``python -m animegen.toonworld.sheet sheet.png``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from animegen.errors import AnimegenError
from animegen.toonworld.palettes import LOOKS
from animegen.toonworld.scene import SPLITS, Scene, Size
from animegen.toonworld.truth import HIDDEN


def flow_colours(flow: np.ndarray, largest: float | None = None) -> np.ndarray:
    """Visualise a flow (2, H, W) as (H, W, 3) uint8: hue = direction, saturation = length up to ``largest`` pixels."""
    length = np.hypot(flow[0], flow[1])
    scale = max(float(length.max()) if largest is None else largest, 1e-6)
    hue = (np.arctan2(flow[1], flow[0]) / np.pi * 90 + 90) % 180
    saturation = np.clip(length / scale, 0, 1) * 255
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], -1)
    return cv2.cvtColor(np.rint(hsv).clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)


def label_colours(labels: np.ndarray) -> np.ndarray:
    """Visualise part numbers (H, W) as distinct colours (H, W, 3) uint8."""
    number = np.arange(256)
    hsv = np.stack([number * 67 % 180, 110 + number * 37 % 120, 140 + number * 53 % 110], -1).astype(np.uint8)
    return cv2.cvtColor(hsv[None], cv2.COLOR_HSV2RGB)[0][labels]


def contact_sheet(scenes: Sequence[Scene], t: int) -> np.ndarray:
    """Return an image with one column per scene and one row per look at frame t."""
    columns = [[s.photo(t), *(s.anime(t, style) for style in LOOKS[1:])] for s in scenes]
    return np.concatenate([np.concatenate(column) for column in columns], axis=1)


def strip(scene: Scene, times: Sequence[int]) -> np.ndarray:
    """Return an image with one column per time and the rows looks, flow to the next frame (hidden: black), parts."""
    columns = []
    for t in times:
        t2 = min(t + 1, scene.frames - 1)
        flow = flow_colours(scene.flow(t, t2), largest=0.03 * scene.height)
        flow[scene.visibility(t, t2) == HIDDEN] = 0
        looks = [scene.photo(t), *(scene.anime(t, style) for style in LOOKS[1:])]
        columns.append(np.concatenate([*looks, flow, label_colours(scene.labels(t))]))
    return np.concatenate(columns, axis=1)


def save(path: str | Path, image: np.ndarray) -> None:
    """Write an RGB image (H, W, 3) uint8; the suffix selects the format."""
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise AnimegenError(f"The image '{path}' could not be written: choose a writable folder and the suffix .png.")


def main() -> None:
    """Draw a contact sheet of several scenes, or with ``--strip`` one scene over time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", help="output image, for example sheet.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train", choices=SPLITS)
    parser.add_argument("--first", type=int, default=0, help="index of the first scene")
    parser.add_argument("--count", type=int, default=6, help="number of scenes or times")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=None, help="default: the height")
    parser.add_argument("--strip", action="store_true", help="show one scene over time, with flow and parts")
    options = parser.parse_args()
    size: Size = (options.height, options.width or options.height)
    count = 1 if options.strip else options.count
    scenes = [Scene(options.seed, options.split, options.first + n, size) for n in range(count)]
    if options.strip:
        times = np.linspace(0, scenes[0].frames - 1, options.count).round().astype(int).tolist()
        save(options.output, strip(scenes[0], times))
    else:
        save(options.output, contact_sheet(scenes, scenes[0].frames // 2))


if __name__ == "__main__":
    main()
