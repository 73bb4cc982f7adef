"""Where clips come from: the generated world, and folders in the layouts of the public triplet datasets."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from animegen.data.sampler import counter_hash
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import existing_folder, read_text
from animegen.media.images import EXTENSIONS, natural_key, read_image, visible_files
from animegen.toonworld import ToonWorldImages
from animegen.toonworld.scene import Size

log = logging.getLogger(__name__)


@runtime_checkable
class ClipSource(Protocol):
    """A numbered collection of clips without cuts: deterministic, picklable.

    Two more members are used where a source has them: ``prepare()`` does costly work once, before workers start, and
    ``skipped`` counts broken files.
    """

    def __len__(self) -> int:
        """Return the number of clips."""
        ...

    def name(self, index: int) -> str:
        """Return the name of a clip: stable and unique within the source."""
        ...

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        ...

    def load(self, index: int, number: int) -> Tensor | None:
        """Return frame ``number`` of a clip as uint8 ``(3, H, W)``, RGB; ``None`` if it is broken and skipped."""
        ...


class ToonWorldFrames:
    """The drawn frames of clips of the generated world, kept like images (see `ToonWorldImages`).

    Args:
        style: ``meadow``, ``dusk``, ``print``, or ``photo`` for the photo look.
        split: ``train``, ``val`` or ``test``.
        scenes: number of clips, each of another scene.
        frames: frames per clip.
        size: side of the frames, or (height, width).
        first_scene: number of the first scene.
        seed: the world.
        hold: frames per drawing; 1 draws on ones, ``None`` as each scene likes (under a camera that moves on ones).
        speed: how fast things move (see `Scene`); ``None`` draws from [.25, .6] per scene.
        cache: ``memory``, ``none``, or a folder that keeps the frames.
        workers: processes that draw the cache.
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
        self.style, self.split, self.frames = style, split, frames
        self.pictures = ToonWorldImages(
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

    def __len__(self) -> int:
        return len(self.pictures) // self.frames

    def name(self, index: int) -> str:
        """Return a stable name such as ``val-0003-meadow``."""
        split, scene, _, style = self.pictures.name(index * self.frames).split("-")
        return f"{split}-{scene}-{style}"

    def length(self, index: int) -> int:
        """Return the number of frames, the same for all clips."""
        return self.frames

    def load(self, index: int, number: int) -> Tensor:
        """Return a frame as uint8 ``(3, H, W)``."""
        if not 0 <= number < self.frames:
            raise IndexError(f"frame {number} of {self.frames}")
        return self.pictures.image(index * self.frames + number)

    def prepare(self) -> None:
        """Draw or open the frames."""
        self.pictures.prepare()


class MixedClips:
    """Several sources as one, so that a network sees all of them in one training.

    Args:
        sources: name -> source. The names go before those of the clips.
        times: name -> how often each clip of that source stands in the collection, 1 where nothing is said: clips are
            drawn evenly, so a few real ones among many generated ones would hardly be seen.

    Raises:
        AnimegenError: without sources, and for ``times`` below 1 or of an unknown source.
    """

    def __init__(self, sources: Mapping[str, ClipSource], times: Mapping[str, int] | None = None) -> None:
        times = dict(times or {})
        if not sources:
            raise AnimegenError("Mixed clips need at least one source.")
        for name, often in times.items():
            if name not in sources:
                raise AnimegenError(f"times names '{name}', which is no source.{did_you_mean(name, sources)}")
            if often < 1:
                raise AnimegenError(f"times of '{name}' is {often}: use 1 or more, or leave the source out.")
        self.sources = dict(sources)
        self.times = {name: times.get(name, 1) for name in sources}

    @property
    def skipped(self) -> int:
        """Number of broken files met so far, in all sources."""
        return sum(getattr(source, "skipped", 0) for source in self.sources.values())

    def prepare(self) -> None:
        """Let each source do its costly work."""
        for source in self.sources.values():
            if (prepare := getattr(source, "prepare", None)) is not None:
                prepare()

    def __len__(self) -> int:
        return sum(len(source) * self.times[name] for name, source in self.sources.items())

    def name(self, index: int) -> str:
        """Return the name of a clip, such as ``folder/film/0003``, with ``#2`` behind it the second time."""
        name, again, place = self._place(index)
        return f"{name}/{self.sources[name].name(place)}" + (f"#{again + 1}" if again else "")

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        name, _, place = self._place(index)
        return self.sources[name].length(place)

    def load(self, index: int, number: int) -> Tensor | None:
        """Return a frame as uint8 ``(3, H, W)``, or ``None`` if its source skips it."""
        name, _, place = self._place(index)
        return self.sources[name].load(place, number)

    def _place(self, index: int) -> tuple[str, int, int]:
        """Return the name of the source, how often the clip came before, and its number in the source."""
        for name, source in self.sources.items():
            if index < len(source) * self.times[name]:
                return name, *divmod(index, len(source))
            index -= len(source) * self.times[name]
        raise IndexError(f"clip {index} beyond the last of {len(self)}")


LAYOUTS = ("vimeo90k", "atd12k", "folders")
_SPLITS = ("train", "val", "test", "all")
_ATD = {"train": ("train_10k",), "test": ("test_2k_540p", "test_2k_original")}
_VIMEO = {"train": ("tri_trainlist.txt", "sep_trainlist.txt"), "test": ("tri_testlist.txt", "sep_testlist.txt")}
#: Lists of clips, one folder per line, as ``animegen prepare`` writes them.
LISTS = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}


class TripletFolders:
    """Clips as folders of frames: three consecutive frames each, or more.

    ==============  ==========================================================================================
    layout          what lies in the folder
    ==============  ==========================================================================================
    ``vimeo90k``    ``sequences/00001/0266/im1.png`` ..., ``tri_trainlist.txt``, ``tri_testlist.txt`` (septuplets:
                    ``sep_*list.txt``)
    ``atd12k``      ``train_10k/<name>/frame1.jpg`` ..., ``test_2k_540p/<name>/frame1.png`` ...
    ``folders``     any folders with three or more images each, in natural order of their names; where the files
                    ``train.txt``, ``val.txt`` and ``test.txt`` are there, as ``animegen prepare`` writes them, the
                    folders that these name
    ==============  ==========================================================================================

    Validation clips are held out of the training list by the hashes of their names, so a clip stays on its side when
    others come or go. With ``folders`` and no lists, ``test`` are the validation clips. The folder is read when it is
    first needed.

    Args:
        folder: where the dataset lies.
        layout: one of the above, or ``auto``, which looks.
        split: ``train``, ``val`` or ``test``; of ``folders`` also ``all``, to evaluate on clips none of which was seen.
        holdout: share of the training list that is kept for validation.
        on_error: what a broken file does. ``skip``: it is named once in a warning, and another clip takes its place;
            ``fail``: training stops.

    Raises:
        AnimegenError: when first used, if the layout is not there.
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
            raise AnimegenError(f"A share of {holdout} cannot be held out: use a number between 0 and 1.")
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
        """Number of broken files met so far (in this process)."""
        return len(self._broken)

    def __len__(self) -> int:
        return len(self.clips)

    def prepare(self) -> None:
        """List the folders."""
        _ = self.clips

    def name(self, index: int) -> str:
        """Return the folder of a clip below that of the dataset."""
        return self.clips[index][0]

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
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
            raise AnimegenError(f"split=all is for folders of clips, not for the layout {layout}: it has its own test.")
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
            raise AnimegenError(f"The lists in '{self.folder}' name '{line}', which lies outside: remove the line.")
        return root / line

    def _atd(self) -> list[Path]:
        names = _ATD["test" if self.split == "test" else "train"]
        parts = [self.folder / name for name in names if (self.folder / name).is_dir()]
        if not parts:
            raise AnimegenError(f"'{self.folder}' has no folder {' or '.join(names)} of the ATD-12K layout.")
        return sorted((folder for folder in parts[0].iterdir() if folder.is_dir()), key=_folder_key)

    def _side(self, clips: list[tuple[str, list[Path]]]) -> list[tuple[str, list[Path]]]:
        """Return the clips of this side of the division of the training list."""
        places = [counter_hash("holdout", name) % 2**64 for name, _ in clips]
        held = {place for place in places if place < self.holdout * 2**64}
        if not held and len(clips) > 1:
            held = {min(places)}
        wanted = self.split != "train"
        return [clip for clip, place in zip(clips, places, strict=True) if (place in held) == wanted]


def _is_frame(file: Path) -> bool:
    return file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")


def _frames(folder: Path) -> list[Path]:
    """Return the frames of a folder: files with a number in the name if there are any, else all images."""
    files = [file for file in folder.iterdir() if _is_frame(file)] if folder.is_dir() else []
    counted = [file for file in files if re.search(r"[0-9]", file.stem)]
    return sorted(counted if len(counted) >= 3 else files, key=lambda file: natural_key(file.name))


def _folder_key(folder: Path) -> list:
    return [natural_key(part) for part in folder.parts]
