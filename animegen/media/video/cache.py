"""Videos as arrays on disk: decoded once, read in any order by any number of processes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import uuid
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json
from animegen.errors import AnimegenError
from animegen.files import real_path, regular_file
from animegen.media.photos import resize
from animegen.media.video.opening import open_video

#: Version of the format; older caches are not read.
FORMAT = 2


@dataclass(frozen=True)
class CachedClip:
    """A decoded video on disk. It can be pickled; each process maps the file into its own memory.

    Attributes:
        file: uint8 values of all frames, ``(T,3,H,W)``.
        shape: ``(T,3,H,W)``.
        times: when each frame appears, in seconds.
        problems: sentences about parts of the video that could not be read.
    """

    file: Path
    shape: tuple[int, int, int, int]
    times: tuple[Fraction, ...]
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Tensor:
        """Return frame ``index``, uint8 ``(3,H,W)``, as a copy."""
        return torch.from_numpy(self._frames[index].copy())

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_frames"}

    @cached_property
    def _frames(self) -> np.ndarray:
        return np.memmap(self.file, np.uint8, "r", shape=self.shape)


def cached_clip(path: str | Path, folder: str | Path, short_side: int | None = None) -> CachedClip:
    """Return a video from the cache; it is decoded into the cache first if missing.

    Videos are told apart by path, size, time of the last change, and ``short_side``. A video that is being decoded by
    several processes at once is decoded by each, and kept once.

    Args:
        path: the video.
        folder: the cache; it may be deleted while no process reads it.
        short_side: scale frames down to this shorter side, in pixels; ``None``: keep their size.

    Raises:
        AnimegenError: if the video cannot be read, or the disk has no room for it.
    """
    path, folder = Path(path), Path(folder)
    place = folder / _key(path, short_side)
    if not (place / "clip.json").is_file():
        _decode(path, place, short_side)
    return _read(place)


class _Facts(TypedDict):
    """Content of ``clip.json``."""

    shape: tuple[int, int, int, int]
    times: list[str]
    problems: list[str]


def _read(place: Path) -> CachedClip:
    remedy = f"remove the folder '{place}', and it is made again"
    facts = read_json(place / "clip.json", "the facts of a decoded video", remedy)
    fault = mismatch(facts, _Facts, "it")
    if fault is None:
        try:
            times = tuple(Fraction(time) for time in facts["times"])
            clip = CachedClip(place / "frames.u8", tuple(facts["shape"]), times, tuple(facts["problems"]))
            size = regular_file(clip.file).st_size
            if min(clip.shape) > 0 and size == math.prod(clip.shape) and len(times) == len(clip):
                return clip
            fault = f"its {size} bytes of frames are not {clip.shape} with {len(times)} times"
        except (ValueError, ZeroDivisionError) as error:
            fault = str(error)
    raise AnimegenError(f"'{place / 'clip.json'}' is damaged, {fault}: {remedy}.")


def _key(path: Path, short_side: int | None) -> str:
    facts = regular_file(path)
    identity = (FORMAT, real_path(path), facts.st_size, facts.st_mtime_ns, short_side)
    return f"{path.stem[:40]}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}"


def _decode(path: Path, place: Path, short_side: int | None) -> None:
    reader = open_video(path)
    width, height = reader.info.width, reader.info.height
    if short_side is not None and min(width, height) > short_side:
        shorter = min(width, height)
        width, height = (max(1, round(side * short_side / shorter)) for side in (width, height))
    hidden = place.with_name(f".{uuid.uuid4().hex}.part")
    times: list[Fraction] = []
    try:
        hidden.mkdir(parents=True)
        needed = 3 * width * height * (reader.info.expected_frames or 0)
        if needed > shutil.disk_usage(hidden).free:
            raise AnimegenError(
                f"'{path}' takes {needed / 2**30:.1f} GiB when decoded, more than is free at '{place.parent}': make"
                " room, choose another folder, or a smaller size."
            )
        with open(hidden / "frames.u8", "wb") as file:
            for pixels, time in reader:
                file.write(resize(pixels, height, width).contiguous().numpy().data)
                times.append(time)
        facts = {
            "shape": [len(times), 3, height, width],
            "times": [str(time) for time in times],
            "problems": reader.problems,
            "video": str(path),
        }
        (hidden / "clip.json").write_text(json.dumps(facts))
        try:
            os.rename(hidden, place)
        except OSError:
            if not (place / "clip.json").is_file():  # else another process was faster
                raise
    except OSError as error:
        raise AnimegenError(
            f"'{path}' cannot be decoded into '{place.parent}' ({error.strerror}): check the folder and the space left."
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
