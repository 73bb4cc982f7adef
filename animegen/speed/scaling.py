"""How cost grows: of a training step with batch, crops and width, of photos with their pixels, of videos with time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image

from animegen.config.instantiate import build
from animegen.engine.checkpoint import pick_device
from animegen.errors import AnimegenError
from animegen.media.video.frames import VideoInfo
from animegen.speed.startup import measure as measure_process
from animegen.speed.video import FPS, generated, write_film

#: Key of a configuration -> the values that it takes while the others stay as they are.
STEP: dict[str, tuple[float, ...]] = {
    "size.batch_size": (1, 2, 4, 8),
    "size.image_size": (32, 64, 128, 192),
    "size.width": (0.125, 0.25, 0.5, 1.0),
}
#: Megapixels of photos of 4:3.
MEGAPIXELS: tuple[float, ...] = (0.25, 1.0, 4.0, 16.0, 33.0)
#: Frames of videos, and their size (height, width).
FRAMES: tuple[int, ...] = (100, 1_000, 10_000)
SMALL = 48, 64
#: Steps after the first one, of which the fastest counts.
TURNS = 2

#: (name of the x-axis, (name, unit) of each y-axis, rows of x and one y for each).
Curve = tuple[str, tuple[str, ...], list[tuple[float, ...]]]


def scale_steps(
    compose: Callable[[Sequence[str]], DictConfig], batch: Callable[..., dict[str, torch.Tensor]], loop: type
) -> list[Curve]:
    """Return the cost of a training step against each key of :data:`STEP`.

    It is CPU time, which other work on the machine hardly changes, and on other devices elapsed time.

    Args:
        compose: returns the configuration with further words.
        batch: makes a batch, see :func:`~animegen.speed.bench.batch_for`.
        loop: class :class:`~animegen.speed.bench.BareLoop`.
    """
    curves: list[Curve] = []
    for key, values in STEP.items():
        rows: list[tuple[float, ...]] = []
        for value in values:
            config = compose([f"{key}={value}"])
            torch.manual_seed(config.seed)
            device, side = pick_device(config.device.value), config.size.image_size
            model: Any = build(config.model, "model")
            bare = loop(model, device, config.precision.trainer)
            images = batch(model, config.size.batch_size, side, side, device)
            clock = time.process_time if device.type == "cpu" else time.perf_counter
            costs = []
            for _ in range(1 + TURNS):
                began = clock()
                bare.times(images, 1)
                costs.append(1000 * (clock() - began))
            rows.append((value, min(costs[1:])))
        curves.append((key, ("ms per step",), rows))
    return curves


def scale_photos(words: Sequence[str] = ()) -> list[Curve]:
    """Return CPU seconds and peak memory of ``animegen stylize`` for photos of each size in :data:`MEGAPIXELS`."""
    rows: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in MEGAPIXELS:
            width = round((megapixels * 4e6 / 3) ** 0.5)
            noise = Image.effect_noise((width // 8, width * 3 // 32), 80)
            noise.resize((width, width * 3 // 4)).convert("RGB").save(f"{folder}/photo.jpg")
            rows.append((megapixels, *_cost(folder, "photo.jpg", "drawn.jpg", words)))
    return [("megapixels", ("CPU s", "peak memory, MiB"), rows)]


def scale_videos(words: Sequence[str] = ()) -> list[Curve]:
    """Return CPU seconds and peak memory of ``animegen stylize`` for videos of each length in :data:`FRAMES`."""
    rows: list[tuple[float, ...]] = []
    info = VideoInfo(SMALL[1], SMALL[0], FPS, 1 / FPS)
    with tempfile.TemporaryDirectory() as folder:
        for count in FRAMES:
            write_film(Path(folder) / "video.mp4", info, islice(generated(SMALL), count), "ultrafast")
            rows.append((count, *_cost(folder, "video.mp4", "drawn.mp4", words)))
    return [("frames", ("CPU s", "peak memory, MiB"), rows)]


def _cost(folder: str, source: str, target: str, words: Sequence[str]) -> tuple[float, float]:
    """Return CPU seconds and peak memory of ``animegen stylize`` on a file of a folder."""
    command = ["-m", "animegen", "stylize", f"input={source}", f"output={target}", "overwrite=true", *words]
    cost = measure_process(command, folder)
    if cost.code != 0:
        raise AnimegenError(f"animegen stylize {' '.join(words)} ended with code {cost.code}: run it to see why.")
    return cost.seconds, cost.memory


def rows_of(curves: Sequence[Curve]) -> dict[str, float]:
    """Return the rows of a table."""
    return {
        f"{axis}={row[0]:g}, {name}": value
        for axis, names, rows in curves
        for row in rows
        for name, value in zip(names, row[1:], strict=True)
    }


def plot(curves: Sequence[Curve], path: Path) -> None:
    """Write a plot of each quantity against a logarithmic axis as PNG.

    A quantity that grows more than tenfold has a logarithmic axis, too, where a cost in proportion is a straight line.
    """
    from matplotlib.figure import Figure

    panels = [(axis, name, rows, n) for axis, names, rows in curves for n, name in enumerate(names, 1)]
    figure = Figure(figsize=(3.2 * len(panels), 2.6), dpi=100, layout="constrained")
    for axes, (axis, name, rows, place) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        values = [row[place] for row in rows]
        axes.plot([row[0] for row in rows], values, "o-", color="#225588")
        axes.set(xlabel=axis, ylabel=name, xscale="log")
        if max(values) > 10 * min(values) > 0:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0, 1.1 * max(values))
        axes.set_xticks([row[0] for row in rows], [f"{row[0]:g}" for row in rows])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png")
