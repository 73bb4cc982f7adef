"""Data sources of ToonWorld images and clips, drawn on demand or cached in memory or in a memory-mapped file."""

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

Progress = Callable[[int, int], None]  # number of scenes drawn, total number


def spread_times(frames: int, count: int) -> list[int]:
    """Return ``count`` frame numbers spread evenly over a clip of ``frames`` (the middle one for a count of 1)."""
    return [int((2 * k + 1) * frames / (2 * count)) for k in range(count)]


def _scene_looks(job: tuple[tuple[str, ...], list[int], dict[str, Any]]) -> dict[str, np.ndarray]:
    """Draw the looks of one scene at the given times: look -> (F, 3, H, W) uint8."""
    looks, times, arguments = job
    scene = Scene(**arguments)
    drawn: dict[str, list[np.ndarray]] = {look: [] for look in looks}
    for t in times:
        for look in looks:
            image = scene.photo(t) if look == "photo" else scene.anime(t, look)
            drawn[look].append(image.transpose(2, 0, 1))
    return {look: np.stack(images) for look, images in drawn.items()}


def _one_thread() -> None:
    cv2.setNumThreads(1)  # by default every worker starts one thread per core


def _one_thread_in_a_loader() -> None:
    if get_worker_info() is not None:
        _one_thread()


def _context() -> multiprocessing.context.BaseContext:
    """Return the forkserver context if available, else spawn. Fork would copy the locks of other threads."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _draw_scenes(
    looks: Sequence[str], times: list[int], scenes: list[dict[str, Any]], workers: int, progress: Progress | None
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the looks of each scene in order, drawn in this process or by a pool."""
    jobs = [(tuple(looks), times, arguments) for arguments in scenes]
    # Workers of data loaders are daemons and may not have child processes.
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
    """Draw several looks of the same scenes; arguments as for :class:`ToonWorldImages`.

    Returns look -> (scenes * frames_per_scene, 3, H, W) uint8 RGB, ordered by scene, at evenly spaced times.
    """
    for look in looks:
        check_choice("look", look, LOOKS)
    times = spread_times(frames, frames_per_scene)
    arguments = _scene_arguments(split, scenes, size, first_scene, seed, hold, frames, speed)
    drawn = list(_draw_scenes(looks, times, arguments, workers, progress))
    return {look: np.concatenate([one[look] for one in drawn]) for look in looks}


class ToonWorldImages:
    """ToonWorld images in one look: ``scenes * frames_per_scene`` images.

    Sources with the same scenes and different looks are paired: image i shows the same geometry.

    Args:
        look: one of ``LOOKS``.
        split: see :class:`Scene`, like ``size``, ``seed``, ``hold``, ``frames`` and ``speed``.
        scenes: number of scenes.
        frames_per_scene: number of images per scene, at evenly spaced times.
        first_scene: index of the first scene.
        cache: ``memory`` keeps all images, drawn on first use or by :meth:`prepare`; ``none`` draws on demand; the path
            of a folder stores them there in a memory-mapped file named by version and parameters.
        workers: number of processes that draw the cache.
        progress: called with the number of scenes drawn and their total number.

    Raises:
        AnimegenError: for an unknown choice or invalid numbers.
    """

    KEPT_SCENES = 4  # number of recent scenes kept with cache="none"

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
        self._images: np.ndarray | None = None
        self._scenes: OrderedDict[int, Scene] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def in_look(self, look: str) -> ToonWorldImages:
        """Return the same images in another look: image i of both shows the same geometry."""
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
            assert self._images is not None
            return torch.from_numpy(np.array(self._images[index]))
        scene = self._scene(position)
        image = scene.photo(t) if self.look == "photo" else scene.anime(t, self.look)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def scene(self, index: int) -> Scene:
        """Return the scene of image ``index``, newly made."""
        return Scene(**self._arguments[self._place(index)[0]])

    def _scene(self, position: int) -> Scene:
        if position not in self._scenes:
            _one_thread_in_a_loader()
            self._scenes[position] = Scene(**self._arguments[position])
            if len(self._scenes) > self.KEPT_SCENES:
                self._scenes.popitem(last=False)
        self._scenes.move_to_end(position)
        return self._scenes[position]

    def prepare(self) -> None:
        """Draw or open the cache now. Call it before workers start, so that they share it."""
        if self.cache == "none" or self._images is not None:
            return
        if self.cache == "memory":
            self._images = np.empty(self.shape, np.uint8)
            self._fill(self._images)
            return
        path = self.cache_file()
        if not path.exists():
            self._write(path)
        remedy = "remove the file to draw it again"
        self._images = load_array(path, "ToonWorld images", remedy)
        if self._images.shape != self.shape or self._images.dtype != np.uint8:
            raise AnimegenError(f"'{path}' holds an array of another shape ({self._images.shape}): {remedy}.")

    def cache_file(self) -> Path:
        """Return the path of the memory-mapped file, named by look, split and a hash of version and parameters."""
        key = repr((VERSION, self.look, self.shape, self.times, self._arguments))
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        return Path(self.cache) / f"toonworld-{self.look}-{self.split}-{digest}.npy"

    def _fill(self, target: np.ndarray) -> None:
        _one_thread_in_a_loader()
        log.info("drawing %d ToonWorld images (%s, %s)", len(self), self.split, self.look)
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
                f"ToonWorld cannot store its images in '{self.cache}' ({error}): "
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
        # A memory map would be pickled as a copy; workers open the file instead.
        state = {**self.__dict__, "_scenes": OrderedDict(), "progress": None}
        if self.cache not in ("memory", "none"):
            state["_images"] = None
        return state


class ToonWorldClips:
    """ToonWorld clips with their ground truth; arguments as for :class:`ToonWorldImages`."""

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
        """Return the scene of clip ``index``."""
        return Scene(**self._arguments[index])

    def clip(self, index: int) -> dict[str, torch.Tensor]:
        """Return a clip of T frames with its ground truth.

        photo, anime: (T, 3, H, W) uint8. labels: (T, H, W) uint8 part numbers. flow_forward, flow_backward:
        (T-1, 2, H, W) float32 in pixels, from frame n to n+1 (forward) or from n+1 to n (backward).
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
