"""Sources of clips: ToonWorld, and folders in the layouts of public triplet datasets."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from animegen.data.clips.truth import MovingSource, SceneMotion
from animegen.data.sampler import counter_hash
from animegen.data.sources import prepare_source
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import existing_folder, read_text
from animegen.media.images import EXTENSIONS, natural_key, read_image, visible_files
from animegen.toonworld import ToonWorldImages
from animegen.toonworld.scene import Size

log = logging.getLogger(__name__)


@runtime_checkable
class ClipSource(Protocol):
    """Numbered collection of clips without cuts: deterministic and picklable.

    Two more members are optional: ``prepare()`` does costly work once, before workers start, and ``skipped`` counts
    broken files.
    """

    def __len__(self) -> int:
        """Return the number of clips."""
        ...

    def name(self, index: int) -> str:
        """Return the name of a clip: stable and unique within the source."""
        ...

    def length(self, index: int) -> int:
        """Return the number of frames of a clip."""
        ...

    def load(self, index: int, number: int) -> Tensor | None:
        """Return frame ``number`` of a clip as uint8 ``(3, H, W)``, RGB, or ``None`` if it is broken."""
        ...


class ToonWorldFrames:
    """ToonWorld clips, cached like images (see `ToonWorldImages`).

    Args:
        style: ``meadow``, ``dusk``, ``print``, or ``photo`` for the photo look.
        split: ``train``, ``val`` or ``test``.
        scenes: number of clips, one per scene.
        frames: frames per clip.
        size: side of the frames, or (height, width).
        first_scene: index of the first scene.
        seed: see `Scene`.
        hold: frames per drawing, see `Scene`; 1 for a new drawing in every frame, ``None``: drawn per scene.
        speed: speed of motion, see `Scene`.
        cache: ``memory``, ``none``, or a folder.
        workers: number of processes that draw the cache.
    """

    def __init__(
        self,
        style: str = "meadow",
        split: str = "train",
        scenes: int = 32,
        frames: int = 24,
        size: Size = 128,
        first_scene: int = 0,
        seed: int = 0,
        hold: int | None = 1,
        speed: float | None = None,
        cache: str = "memory",
        workers: int = 0,
    ) -> None:
        self.style, self.split, self.frames, self.hold = style, split, frames, hold
        self.images = ToonWorldImages(
            style,
            split,
            scenes,
            frames_per_scene=frames,
            size=size,
            first_scene=first_scene,
            seed=seed,
            hold=hold,
            cache=cache,
            workers=workers,
            frames=frames,
            speed=speed,
        )
        self._motions: dict[int, SceneMotion] = {}

    def __len__(self) -> int:
        return len(self.images) // self.frames

    def name(self, index: int) -> str:
        """Return a stable name such as ``val-0003-meadow``."""
        split, scene, _, style = self.images.name(index * self.frames).split("-")
        return f"{split}-{scene}-{style}"

    def length(self, index: int) -> int:
        """Return the number of frames, the same for all clips."""
        return self.frames

    def load(self, index: int, number: int) -> Tensor:
        """Return a frame as uint8 ``(3, H, W)``."""
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number} of {self.frames}")
        return self.images.image(index * self.frames + number)

    def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
        """Return the exact motion between two frames of a clip, see `MovingSource`; parts of scenes stay in memory."""
        if index not in self._motions:
            self._motions[index] = SceneMotion(self.images.scene(index * self.frames), self.frames)
        return self._motions[index].between(number, other)

    def prepare(self) -> None:
        """Draw or open the frames."""
        self.images.prepare()


class MixedClips:
    """Concatenation of several sources.

    Args:
        sources: name -> source, or ``None`` for a source that is left out. The names become prefixes of the names of
            clips.
        times: name -> number of repetitions of that source's clips, by default 1, to raise their weight: clips are
            drawn uniformly.

    Raises:
        AnimegenError: without sources, or for ``times`` below 1 or of an unknown source.
    """

    def __init__(self, sources: Mapping[str, ClipSource], times: Mapping[str, int] | None = None) -> None:
        times = {name: often for name, often in (times or {}).items() if sources.get(name, 0) is not None}
        given = {name: source for name, source in sources.items() if source is not None}
        if not given:
            raise AnimegenError("Mixed clips need at least one source.")
        for name, often in times.items():
            if name not in given:
                raise AnimegenError(f"times has the unknown source '{name}'.{did_you_mean(name, given)}")
            if often < 1:
                raise AnimegenError(f"times of '{name}' is {often}: use 1 or more, or remove the source.")
        self.sources = given
        self.times = {name: times.get(name, 1) for name in given}

    @property
    def skipped(self) -> int:
        """Number of broken files met so far, in all sources."""
        return sum(getattr(source, "skipped", 0) for source in self.sources.values())

    def prepare(self) -> None:
        """Prepare all sources."""
        for source in self.sources.values():
            prepare_source(source)

    def __len__(self) -> int:
        return sum(len(source) * self.times[name] for name, source in self.sources.items())

    def name(self, index: int) -> str:
        """Return the name of a clip, such as ``folder/video/0003``, followed by ``#2`` at its first repetition."""
        name, again, place = self._place(index)
        return f"{name}/{self.sources[name].name(place)}" + (f"#{again + 1}" if again else "")

    def length(self, index: int) -> int:
        """Return the number of frames of a clip."""
        name, _, place = self._place(index)
        return self.sources[name].length(place)

    def load(self, index: int, number: int) -> Tensor | None:
        """Return a frame as uint8 ``(3, H, W)``, or ``None`` if it is broken."""
        name, _, place = self._place(index)
        return self.sources[name].load(place, number)

    def motion(self, index: int, number: int, other: int) -> tuple[Tensor, Tensor]:
        """Return the exact motion between two frames of a clip, see `MovingSource`.

        Raises:
            AnimegenError: if the source of the clip does not know it.
        """
        name, _, place = self._place(index)
        source = self.sources[name]
        if not isinstance(source, MovingSource):
            raise AnimegenError(f"The motion of the clips '{name}' is not known: leave them out of the mixture.")
        return source.motion(place, number, other)

    def _place(self, index: int) -> tuple[str, int, int]:
        """Return the name of the source, the repetition (from 0), and the number of the clip in the source."""
        for name, source in self.sources.items():
            if index < len(source) * self.times[name]:
                return name, *divmod(index, len(source))
            index -= len(source) * self.times[name]
        raise IndexError(f"clip index beyond the last of {len(self)}")


LAYOUTS = ("vimeo90k", "atd12k", "folders")
_SPLITS = ("train", "val", "test", "all")
_ATD = {"train": ("train_10k",), "test": ("test_2k_540p", "test_2k_original")}
_VIMEO = {"train": ("tri_trainlist.txt", "sep_trainlist.txt"), "test": ("tri_testlist.txt", "sep_testlist.txt")}
#: Lists of clips, one folder per line, written by ``animegen prepare``.
LISTS = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}


class TripletFolders:
    """Clips as folders of three or more consecutive frames.

    ==============  ==========================================================================================
    layout          content of the folder
    ==============  ==========================================================================================
    ``vimeo90k``    ``sequences/00001/0266/im1.png`` ..., ``tri_trainlist.txt``, ``tri_testlist.txt`` (septuplets:
                    ``sep_*list.txt``)
    ``atd12k``      ``train_10k/<name>/frame1.jpg`` ..., ``test_2k_540p/<name>/frame1.png`` ...
    ``folders``     any folders with three or more images each, in natural order of their names, or those listed in
                    ``train.txt``, ``val.txt`` and ``test.txt`` (written by ``animegen prepare``)
    ==============  ==========================================================================================

    Validation clips are held out of the training list by the hashes of their names, so adding or removing clips does
    not move others. With ``folders`` without lists, ``test`` equals ``val``. The folder is read on first use.

    Args:
        folder: the dataset.
        layout: one of the above, or ``auto`` to detect it.
        split: ``train``, ``val`` or ``test``; with ``folders`` also ``all``, for evaluation on unseen datasets.
        holdout: fraction of the training list for validation.
        on_error: handling of broken files. ``skip``: warn once and use another clip; ``fail``: raise an error.

    Raises:
        AnimegenError: on first use, if the layout is not found.
    """

    def __init__(
        self,
        folder: str | Path,
        layout: str = "auto",
        split: str = "train",
        holdout: float = 0.05,
        on_error: str = "skip",
    ) -> None:
        for what, value, known in (("layout", layout, ("auto", *LAYOUTS)), ("split", split, _SPLITS)):
            if value not in known:
                raise AnimegenError(f"{what}={value} is unknown: use {', '.join(known)}.{did_you_mean(value, known)}")
        if on_error not in ("skip", "fail"):
            raise AnimegenError(f"on_error={on_error} for the folder '{folder}' is unknown: use skip or fail.")
        if not 0 < holdout < 1:
            raise AnimegenError(f"holdout={holdout} must be between 0 and 1.")
        self.folder, self.layout, self.split = Path(folder), layout, split
        self.holdout, self.on_error = holdout, on_error
        self._clips: list[tuple[str, list[Path]]] | None = None
        self._broken: set[Path] = set()

    @property
    def clips(self) -> list[tuple[str, list[Path]]]:
        """Name and files of each clip."""
        if self._clips is None:
            self._clips = self._listed()
        return self._clips

    @property
    def files(self) -> list[Path]:
        """The files of all clips."""
        return [file for _, files in self.clips for file in files]

    @property
    def skipped(self) -> int:
        """Number of broken files met so far in this process."""
        return len(self._broken)

    def __len__(self) -> int:
        return len(self.clips)

    def prepare(self) -> None:
        """List the folders."""
        _ = self.clips

    def name(self, index: int) -> str:
        """Return the path of a clip relative to the dataset."""
        return self.clips[index][0]

    def length(self, index: int) -> int:
        """Return the number of frames of a clip."""
        return len(self.clips[index][1])

    def load(self, index: int, number: int) -> Tensor | None:
        """Return a frame as uint8 ``(3, H, W)``, or ``None`` if it is broken and ``on_error`` is ``skip``."""
        file = self.clips[index][1][number]
        if file in self._broken:
            return None
        try:
            return read_image(file)
        except AnimegenError as error:
            if self.on_error == "fail":
                raise
            self._broken.add(file)
            log.warning("Skipped: %s", error)
            return None

    def _listed(self) -> list[tuple[str, list[Path]]]:
        existing_folder(self.folder)
        layout = self._found_layout() if self.layout == "auto" else self.layout
        divided = False
        if self.split == "all" and layout != "folders":
            raise AnimegenError(f"split=all is not available for the layout {layout}: use split=test.")
        if layout == "vimeo90k":
            folders = self._vimeo()
        elif layout == "atd12k":
            folders = self._atd()
        elif divided := layout == "folders" and all((self.folder / name).is_file() for name in LISTS.values()):
            names = list(LISTS.values()) if self.split == "all" else [LISTS[self.split]]
            lines = [line for name in names for line in read_text(self.folder / name).splitlines()]
            folders = [self._listed_folder(self.folder, line) for line in lines if line]
        else:
            folders = sorted({file.parent for file in visible_files(self.folder) if _is_frame(file)}, key=_folder_key)
        clips = [(folder.relative_to(self.folder).as_posix(), _frames(folder)) for folder in folders]
        clips = [(name, files) for name, files in clips if len(files) >= 3]
        if not divided and self.split != "all" and (layout == "folders" or self.split != "test"):
            clips = self._side(clips)
        if not clips:
            raise AnimegenError(
                f"There is no clip for '{self.split}' in '{self.folder}' (layout {layout}): a clip is a folder with"
                " three or more images, and validation needs at least two clips."
            )
        return clips

    def _found_layout(self) -> str:
        if (self.folder / "sequences").is_dir():
            return "vimeo90k"
        if any((self.folder / name).is_dir() for names in _ATD.values() for name in names):
            return "atd12k"
        return "folders"

    def _vimeo(self) -> list[Path]:
        names = _VIMEO["test" if self.split == "test" else "train"]
        lists = [self.folder / name for name in names if (self.folder / name).is_file()]
        if not lists:
            raise AnimegenError(f"'{self.folder}' has none of the lists {', '.join(names)} of the Vimeo-90K layout.")
        lines = [line.strip() for line in read_text(lists[0]).splitlines()]
        return [self._listed_folder(self.folder / "sequences", line) for line in lines if line]

    def _listed_folder(self, root: Path, line: str) -> Path:
        if "\0" in line or Path(line).is_absolute() or ".." in Path(line).parts:
            raise AnimegenError(f"The lists in '{self.folder}' contain '{line}', which is outside: remove the line.")
        return root / line

    def _atd(self) -> list[Path]:
        names = _ATD["test" if self.split == "test" else "train"]
        parts = [self.folder / name for name in names if (self.folder / name).is_dir()]
        if not parts:
            raise AnimegenError(f"'{self.folder}' has no folder {' or '.join(names)} of the ATD-12K layout.")
        return sorted((folder for folder in parts[0].iterdir() if folder.is_dir()), key=_folder_key)

    def _side(self, clips: list[tuple[str, list[Path]]]) -> list[tuple[str, list[Path]]]:
        """Return the clips of the training list that belong to the split."""
        places = [counter_hash("holdout", name) % 2**64 for name, _ in clips]
        held = {place for place in places if place < self.holdout * 2**64}
        if not held and len(clips) > 1:
            held = {min(places)}
        wanted = self.split != "train"
        return [clip for clip, place in zip(clips, places, strict=True) if (place in held) == wanted]


def _is_frame(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def _frames(folder: Path) -> list[Path]:
    """Return the frames of a folder: the images with numbers in their names if there are three, else all images."""
    files = [file for file in folder.iterdir() if _is_frame(file)] if folder.is_dir() else []
    counted = [file for file in files if re.search(r"[0-9]", file.stem)]
    return sorted(counted if len(counted) >= 3 else files, key=lambda file: natural_key(file.name))


def _folder_key(folder: Path) -> list:
    return [natural_key(part) for part in folder.parts]
