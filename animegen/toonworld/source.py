"""ToonWorld as image and clip sources: drawn on demand, kept in memory or in a memory-mapped file."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import multiprocessing.context
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info

from animegen.errors import AnimegenError
from animegen.nn.array_files import load_array
from animegen.toonworld.palettes import LOOKS, STYLES
from animegen.toonworld.scene import SPLITS, VERSION, Scene, Size, check_choice, frame_shape

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # scenes drawn so far, scenes in all


def spread_times(frames: int, count: int) -> list[int]:
    """Return ``count`` frame numbers spread evenly over a clip of ``frames`` (the middle one for a count of 1)."""
    return [int((2 * k + 1) * frames / (2 * count)) for k in range(count)]


def _scene_looks(job: tuple[tuple[str, ...], list[int], dict[str, Any]]) -> dict[str, np.ndarray]:
    """Build one scene and draw its looks at the given times: look -> (F, 3, H, W) uint8."""
    looks, times, arguments = job
    scene = Scene(**arguments)
    drawn: dict[str, list[np.ndarray]] = {look: [] for look in looks}
    for t in times:
        for look in looks:
            picture = scene.photo(t) if look == "photo" else scene.anime(t, look)
            drawn[look].append(picture.transpose(2, 0, 1))
    return {look: np.stack(pictures) for look, pictures in drawn.items()}


def _one_thread() -> None:
    cv2.setNumThreads(1)  # else each of n workers starts as many threads as there are cores


def _one_thread_in_a_loader() -> None:
    if get_worker_info() is not None:
        _one_thread()


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes start: forked from a fresh server that has imported this module once, else spawned.

    A plain fork of this process would copy the locks of its threads.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _draw_scenes(
    looks: Sequence[str], times: list[int], scenes: list[dict[str, Any]], workers: int, progress: Progress | None
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the looks of each scene in order, drawn here or by a pool of processes."""
    jobs = [(tuple(looks), times, arguments) for arguments in scenes]
    # A data loader's worker may not have children of its own: it draws by itself.
    if workers > 0 and len(jobs) > 1 and not multiprocessing.current_process().daemon:
        with _context().Pool(min(workers, len(jobs)), _one_thread) as pool:
            for done, drawn in enumerate(pool.imap(_scene_looks, jobs), start=1):
                yield drawn
                if progress is not None:
                    progress(done, len(jobs))
        return
    for done, job in enumerate(jobs, start=1):
        yield _scene_looks(job)
        if progress is not None:
            progress(done, len(jobs))


def _scene_arguments(
    split: str, scenes: int, size: Size, first_scene: int, seed: int, hold: int | None, frames: int, speed: float | None
) -> list[dict[str, Any]]:
    common = {"seed": seed, "split": split, "size": size, "frames": frames, "speed": speed, "hold": hold}
    return [{**common, "index": first_scene + n} for n in range(scenes)]


def draw(
    looks: Sequence[str],
    split: str = "train",
    scenes: int = 64,
    frames_per_scene: int = 1,
    size: Size = 128,
    first_scene: int = 0,
    seed: int = 0,
    hold: int | None = 1,
    frames: int = 48,
    speed: float | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """Draw several looks of the same scenes, building each scene once.

    Returns look -> (scenes * frames_per_scene, 3, H, W) uint8 RGB, scene after scene, times evenly spread.
    """
    for look in looks:
        check_choice("look", look, LOOKS)
    times = spread_times(frames, frames_per_scene)
    arguments = _scene_arguments(split, scenes, size, first_scene, seed, hold, frames, speed)
    drawn = list(_draw_scenes(looks, times, arguments, workers, progress))
    return {look: np.concatenate([one[look] for one in drawn]) for look in looks}


class ToonWorldImages:
    """Single pictures of the generated world in one look: ``scenes * frames_per_scene`` images.

    Two sources with the same scenes and other looks are paired: image i shows the same geometry. ``cache``:
    "memory" draws all pictures on first use (or when ``prepare`` is called) and keeps them, "none" draws on demand,
    a folder's path keeps them in a memory-mapped file there, named by the generator's version and all parameters.
    ``workers`` processes draw the cache. ``hold=1`` draws on ones, ``None`` as each scene likes.
    """

    KEPT_SCENES = 4  # with cache="none": recent scenes stay built, so that their next frame is cheap

    def __init__(
        self,
        look: str,
        split: str = "train",
        scenes: int = 64,
        frames_per_scene: int = 1,
        size: Size = 128,
        first_scene: int = 0,
        seed: int = 0,
        hold: int | None = 1,
        cache: str | Path = "memory",
        workers: int = 0,
        frames: int = 48,
        speed: float | None = None,
        progress: Progress | None = None,
    ) -> None:
        check_choice("look", look, LOOKS)
        check_choice("split", split, SPLITS)
        if scenes < 1 or not 1 <= frames_per_scene <= frames:
            raise AnimegenError(
                f"ToonWorldImages needs scenes >= 1 and frames_per_scene from 1 to frames={frames}, "
                f"not {scenes} and {frames_per_scene}: correct these values."
            )
        self.look, self.split, self.cache, self.workers, self.progress = look, split, str(cache), workers, progress
        self.shape = (scenes * frames_per_scene, 3, *frame_shape(size))
        self.times = spread_times(frames, frames_per_scene)
        self._arguments = _scene_arguments(split, scenes, size, first_scene, seed, hold, frames, speed)
        self._settings: dict[str, Any] = {
            "split": split,
            "scenes": scenes,
            "frames_per_scene": frames_per_scene,
            "size": size,
            "first_scene": first_scene,
            "seed": seed,
            "hold": hold,
            "cache": cache,
            "workers": workers,
            "frames": frames,
            "speed": speed,
        }
        self._pictures: np.ndarray | None = None
        self._scenes: OrderedDict[int, Scene] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def in_look(self, look: str) -> ToonWorldImages:
        """Return the same pictures in another look: image i of both shows the same geometry."""
        return ToonWorldImages(look, **self._settings)

    def _place(self, index: int) -> tuple[int, int]:
        """Return (scene position, time) of an image."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        position, k = divmod(index, len(self.times))
        return position, self.times[k]

    def name(self, index: int) -> str:
        """Return a stable name such as ``train-0003-t024-photo``."""
        position, t = self._place(index)
        return f"{self.split}-{self._arguments[position]['index']:04d}-t{t:03d}-{self.look}"

    def image(self, index: int) -> torch.Tensor:
        """Return image ``index`` as a uint8 tensor (3, H, W), RGB."""
        position, t = self._place(index)
        if self.cache != "none":
            self.prepare()
            assert self._pictures is not None
            return torch.from_numpy(np.array(self._pictures[index]))
        scene = self._scene(position)
        picture = scene.photo(t) if self.look == "photo" else scene.anime(t, self.look)
        return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))

    def _scene(self, position: int) -> Scene:
        if position not in self._scenes:
            _one_thread_in_a_loader()
            self._scenes[position] = Scene(**self._arguments[position])
            if len(self._scenes) > self.KEPT_SCENES:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(position)
        return self._scenes[position]

    def prepare(self) -> None:
        """Draw or open the cache now; call it before workers start, so that they share it."""
        if self.cache == "none" or self._pictures is not None:
            return
        if self.cache == "memory":
            self._pictures = np.empty(self.shape, np.uint8)
            self._fill(self._pictures)
            return
        path = self.cache_file()
        if not path.exists():
            self._write(path)
        remedy = "remove the file, and it is made again"
        self._pictures = load_array(path, "images of the generated world", remedy)
        if self._pictures.shape != self.shape or self._pictures.dtype != np.uint8:
            raise AnimegenError(f"'{path}' holds an array of another shape ({self._pictures.shape}): {remedy}.")

    def cache_file(self) -> Path:
        """Return the path of the memory-mapped file: the look, the split and a hash of version and parameters."""
        key = repr((VERSION, self.look, self.shape, self.times, self._arguments))
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Path(self.cache) / f"toonworld-{self.look}-{self.split}-{digest}.npy"

    def _fill(self, target: np.ndarray) -> None:
        _one_thread_in_a_loader()
        log.info("drawing %d pictures of the generated world (%s, %s)", len(self), self.split, self.look)
        count = len(self.times)
        drawn = _draw_scenes((self.look,), self.times, self._arguments, self.workers, self.progress)
        for position, looks in enumerate(drawn):
            target[position * count : (position + 1) * count] = looks[self.look]

    def _write(self, path: Path) -> None:
        """Write the cache under a temporary name and rename it when complete; the last of several writers wins."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AnimegenError(
                f"ToonWorld cannot keep its pictures in '{self.cache}' ({error}): "
                "set cache to memory, none or a writable folder."
            ) from error
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            target = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=self.shape)
            self._fill(target)
            target.flush()
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map sent to a worker would arrive as a copy: the worker opens the file again instead.
        state = {**self.__dict__, "_scenes": OrderedDict(), "progress": None}
        if self.cache not in ("memory", "none"):
            state["_pictures"] = None
        return state


class ToonWorldClips:
    """Whole clips of the generated world with their truth, for models of motion."""

    def __init__(
        self,
        split: str = "train",
        scenes: int = 16,
        frames: int = 48,
        size: Size = 128,
        style: str = "meadow",
        speed: float | None = None,
        hold: int | None = None,
        first_scene: int = 0,
        seed: int = 0,
    ) -> None:
        check_choice("split", split, SPLITS)
        check_choice("style", style, STYLES)
        frame_shape(size)
        if scenes < 1 or frames < 2:
            raise AnimegenError(f"ToonWorldClips needs scenes >= 1 and frames >= 2, not {scenes} and {frames}.")
        self.split, self.style, self.frames = split, style, frames
        self._arguments = _scene_arguments(split, scenes, size, first_scene, seed, hold, frames, speed)

    def __len__(self) -> int:
        return len(self._arguments)

    def name(self, index: int) -> str:
        """Return a stable name such as ``val-0003-meadow``."""
        return f"{self.split}-{self._arguments[index]['index']:04d}-{self.style}"

    def scene(self, index: int) -> Scene:
        """Return the scene of clip ``index``, from which any frame, look or truth can be asked."""
        return Scene(**self._arguments[index])

    def clip(self, index: int) -> dict[str, torch.Tensor]:
        """Return a clip of T frames with its truth.

        photo, anime: (T, 3, H, W) uint8; labels: (T, H, W) uint8 part numbers; flow_forward, flow_backward:
        (T-1, 2, H, W) float32 pixels, between frames n and n+1 on the grid of n (forward) or n+1 (backward);
        visibility_forward, visibility_backward: (T-1, H, W) uint8 (0 hidden, 1 border, 2 visible).
        """
        scene = self.scene(index)
        kinds = (
            "photo",
            "anime",
            "labels",
            "flow_forward",
            "flow_backward",
            "visibility_forward",
            "visibility_backward",
        )
        clip: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
        for t in range(self.frames):
            clip["photo"].append(scene.photo(t).transpose(2, 0, 1))
            clip["anime"].append(scene.anime(t, self.style).transpose(2, 0, 1))
            clip["labels"].append(scene.labels(t))
            if t:
                for direction, start, end in (("forward", t - 1, t), ("backward", t, t - 1)):
                    clip[f"flow_{direction}"].append(scene.flow(start, end))
                    clip[f"visibility_{direction}"].append(scene.visibility(start, end))
        return {kind: torch.from_numpy(np.stack(values)) for kind, values in clip.items()}
