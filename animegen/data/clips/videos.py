"""Videos as sources of windows: their shots, with estimated motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from animegen.data.clips.moving import Draw, MovingStills, places_in
from animegen.data.sampler import counter_hash
from animegen.data.sources import ImageSource
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError
from animegen.files import existing_folder
from animegen.media.images import to_float
from animegen.media.kinds import VIDEO_SUFFIXES
from animegen.media.video.cache import cached_clip
from animegen.media.video.flow import DISFlow
from animegen.media.video.shots import detect_shots
from animegen.nn.warp import consistent


class VideoWindows:
    """The shots of all videos in a folder, with DIS flow.

    Videos are decoded into a cache on disk, flows are cached in memory. As a source of images it has the middle frame
    of each shot. Shots are held out by the hashes of their names; a single shot is in both parts.

    Args:
        folder: folder of videos or animated GIFs, or one of them.
        size: shorter side to which frames are scaled down.
        length: minimum length of shots in frames.
        share: fraction of held-out shots.
        part: ``train``, ``heldout`` or ``all``.
        cache: folder for the decoded videos; by default ``.animegen_cache`` next to them.
        megabytes: size of the cache of flows.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int = 128,
        length: int = 6,
        share: float = 0.1,
        part: str = "train",
        cache: str | Path | None = None,
        megabytes: int = 1024,
    ) -> None:
        if part not in ("train", "heldout", "all"):
            raise AnimegenError(f"part={part} is unknown: use train, heldout or all.")
        self.folder, self.size, self.shortest, self.share, self.part = Path(folder), size, length, share, part
        home = self.folder if self.folder.is_dir() else self.folder.parent
        self.cache, self.megabytes = Path(cache) if cache else home / ".animegen_cache", megabytes
        self._shots: list[tuple[str, Any, int, int]] = []
        self._flows: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Exclude the flows when the source is sent to a worker."""
        return {**self.__dict__, "_flows": {}, "_bytes": 0}

    def prepare(self) -> None:
        """Decode the videos and find their shots."""
        if self._shots:
            return
        shots = []
        for video in self._videos():
            clip = cached_clip(video, self.cache, self.size)
            for first, stop in detect_shots(clip[t] for t in range(len(clip))):
                if stop - first >= self.shortest:
                    shots.append((f"{video.name}-{first}", clip, first, stop))
        if not shots:
            raise AnimegenError(
                f"No shot of the videos in '{self.folder}' has {self.shortest} frames: use longer videos, or set a"
                " smaller data.length."
            )
        self._shots = self._side(shots)

    @property
    def files(self) -> list[Path]:
        """The videos."""
        return self._videos()

    def _videos(self) -> list[Path]:
        if self.folder.is_file():
            return [self.folder]
        existing_folder(self.folder)
        suffixes = (*VIDEO_SUFFIXES, ".gif")
        videos = sorted(path for path in self.folder.iterdir() if path.suffix.lower() in suffixes)
        if not videos:
            raise AnimegenError(f"There are no videos ({', '.join(suffixes)}) in '{self.folder}': add one.")
        return videos

    def _side(self, shots: list[tuple[str, Any, int, int]]) -> list[tuple[str, Any, int, int]]:
        if self.part == "all" or len(shots) == 1 or self.share <= 0:
            return shots
        places = [counter_hash("holdout", name) % 2**64 for name, *_ in shots]
        held = {place for place in places if place < self.share * 2**64} or {min(places)}
        if len(held) == len(shots):
            held = {min(places)}
        return [s for s, place in zip(shots, places, strict=True) if (place in held) == (self.part == "heldout")]

    @property
    def shots(self) -> list[tuple[str, Any, int, int]]:
        """Name, decoded video, first frame and end of each shot."""
        self.prepare()
        return self._shots

    @property
    def clips(self) -> int:
        """The number of shots."""
        return len(self.shots)

    def clip_name(self, index: int) -> str:
        """Return the video's name and the number of the shot's first frame."""
        return self.shots[index][0]

    def __len__(self) -> int:
        return self.clips

    def name(self, index: int) -> str:
        """Return the name of a shot."""
        return self.clip_name(index)

    def image(self, index: int) -> Tensor:
        """Return the middle frame of a shot, uint8 ``(3,H,W)``."""
        _, clip, first, stop = self.shots[index]
        return scale_short_side(clip[(first + stop) // 2], self.size)

    def length(self, index: int) -> int:
        """Return the number of frames of a shot."""
        _, _, first, stop = self.shots[index]
        return stop - first

    def load(self, index: int, number: int | None = None) -> Tensor:
        """Return frame ``number`` of a shot, uint8 ``(3,H,W)``, as :class:`~animegen.data.clips.sources.ClipSource`.

        Without ``number`` return the middle frame, as :func:`animegen.data.sources.load` expects of images.
        """
        if number is None:
            return self.image(index)
        _, clip, first, _ = self.shots[index]
        return scale_short_side(clip[first + number], self.size)

    def window(self, index: int, length: int, size: int, draw: Draw | None) -> tuple[int, Tensor]:
        """Return frames; see :class:`WindowSource`."""
        _, clip, first, stop = self.shots[index]
        places = places_in(stop - first, length, self.clip_name(index))
        start = draw(places, "start") if draw else (places - 1) // 2
        frames = [scale_short_side(clip[first + start + t], self.size) for t in range(length)]
        return start, torch.stack(frames)

    def motion(self, index: int, now: int, then: int) -> tuple[Tensor, Tensor]:
        """Return DIS flow, valid where forward and backward flow agree; see :class:`MotionSource`."""
        key = (index, now, then)
        if key in self._flows:
            flow, valid = self._flows[key]
            return flow.float(), valid
        _, clip, first, _ = self.shots[index]
        images = [scale_short_side(clip[first + t], self.size)[None] for t in (now, then)]
        a, b = (to_float(image) for image in images)
        flow_there, flow_back = DISFlow()(torch.cat([a, b]), torch.cat([b, a])).split(1)
        flow, valid = flow_there[0], consistent(flow_there, flow_back)[0]
        cost = flow.numel() * 2 + valid.numel()
        if self._bytes + cost <= self.megabytes * 2**20:
            self._flows[key] = flow.half(), valid
            self._bytes += cost
        return flow.half().float(), valid


def anime_windows(
    stills: ImageSource, videos: str | Path | None = None, **settings: Any
) -> VideoWindows | MovingStills:
    """Return the windows of a folder of videos if given, else moving crops of the stills.

    Args:
        stills: images in the style.
        videos: folder of videos in the style, or ``None``.
        settings: see :class:`VideoWindows`.
    """
    return MovingStills(stills) if videos is None else VideoWindows(videos, **settings)


def videos_if_given(folder: str | Path | None, **settings: Any) -> VideoWindows | None:
    """Return the shots of the videos in a folder; ``None`` without a folder. For settings see :class:`VideoWindows`."""
    return None if folder is None else VideoWindows(folder, **settings)
