"""Reading and validation of key-frame projects in folders."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from animegen.config.plain import plain_data
from animegen.data.keyframes.alignment import misplaced
from animegen.data.keyframes.patches import erode
from animegen.data.keyframes.project import FrameFiles, GuideFiles, KeyframeProject, read_channels, resized
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import existing_folder, read_text, user_path
from animegen.media.images import EXTENSIONS, list_images, natural_key, open_image, read_image
from animegen.media.kinds import VIDEO_SUFFIXES
from animegen.media.video.opening import open_video

log = logging.getLogger(__name__)

MANIFEST = "project.yaml"
KEYS = ("clip", "range", "hold_out", "resize", "guides")

FORMATS = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",), "TIFF": (".tif", ".tiff")}
LISTED = 30
"""Maximum number of problems listed in a message."""


@dataclass
class Report:
    """Result of the validation of a project.

    Attributes:
        root: the folder.
        problems: one sentence per problem.
        doubts: one sentence per drawing that seems to belong to another frame; they do not prevent training.
        facts: name -> description, for display.
    """

    root: Path
    problems: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    def raise_if_bad(self) -> None:
        """Raise an error that lists all problems.

        Raises:
            AnimegenError: if there are any.
        """
        if not self.problems:
            return
        count = len(self.problems)
        shown = self.problems[:LISTED]
        if count > LISTED:
            shown.append(f"... and {count - LISTED} more.")
        word = "problem" if count == 1 else "problems"
        raise AnimegenError(f"The project '{self.root}' has {count} {word}:" + "".join(f"\n  - {p}" for p in shown))


def folder_project(
    path: str | Path,
    clip: str | Path | None = None,
    hold_out: int | Sequence[str] | None = None,
    resize: bool | None = None,
    guides: dict[str, int] | None = None,
) -> KeyframeProject:
    """Read a project from a folder.

    ::

        project.yaml         optional: clip, range, hold_out, resize, guides
        frames/000001.png    all frames, or a video such as clip.mp4
        keys/000001.png      drawings of a few frames, with the names of the frames (of a video 1, 2, 3 ...)
        masks/000001.png     optional: white where to learn the drawing
        guides/<name>/...    optional: one image per frame, with any number of channels

    The arguments other than ``path`` override ``project.yaml``.

    Args:
        path: the folder.
        clip: folder of frames or video outside of the project.
        hold_out: keys excluded from training, for scoring: their names, or their number.
        resize: scale drawings and masks to their frames instead of rejecting them.
        guides: name -> required number of channels of a guide.

    Raises:
        AnimegenError: lists all problems of the project.
    """
    given = {"clip": clip, "hold_out": hold_out, "resize": resize, "guides": guides}
    project, report = inspect(path, {key: value for key, value in given.items() if value is not None})
    report.raise_if_bad()
    assert project is not None
    for doubt in report.doubts:
        log.warning("%s: %s", report.root, doubt)
    return project


def inspect(path: str | Path, settings: dict[str, Any] | None = None) -> tuple[KeyframeProject | None, Report]:
    """Validate a project; return it, or ``None`` if there are problems, and the report.

    Raises:
        AnimegenError: if there is no such folder, or no clip in it.
    """
    root = user_path("project", path)
    existing_folder(root)
    report = Report(root)
    settings = {**_manifest(root, report), **(settings or {})}
    project = _Inspection(root, settings, report).run()
    if project is not None:
        report.doubts = misplaced(project.photo, project.drawings, project.names)
    return project, report


def clip_of(path: str | Path, settings: dict[str, Any] | None = None) -> tuple[Any, list[str]]:
    """Return the frames of a project, which may have no drawings yet, and their names.

    Raises:
        AnimegenError: if there is no such folder, or no clip in it, or its frames have problems.
    """
    root = user_path("project", path)
    existing_folder(root)
    report = Report(root)
    clip = _Inspection(root, {**_manifest(root, report), **(settings or {})}, report)._clip()
    report.raise_if_bad()
    return clip


class _Inspection:
    """Validation of a project."""

    def __init__(self, root: Path, settings: dict[str, Any], report: Report) -> None:
        self.root, self.settings, self.report = root, settings, report
        self.resize = bool(settings.get("resize", False))
        self.size: tuple[int, int] | None = None
        self.files: list[Path] = []

    def problem(self, text: str) -> None:
        self.report.problems.append(text)

    def run(self) -> KeyframeProject | None:
        photo, names = self._clip()
        keys = self._matched("keys", names, "drawing")
        if not keys:
            self.problem(f"there are no drawings in '{self.root / 'keys'}': add at least one.")
        masks = self._matched("masks", names, "mask") if (self.root / "masks").is_dir() else {}
        drawings = {n: self._drawing(file, names[n]) for n, file in keys.items()}
        areas: dict[int, Tensor] = {}
        for n, file in masks.items():
            if n not in keys:
                self.problem(f"the mask '{file.name}' has no drawing: remove it, or draw that frame.")
            elif (area := self._mask(file)) is not None:
                areas[n] = area
        guides = self._guides(names)
        held = self._held(keys, names)
        self.report.facts |= {
            "clip": f"{len(names)} frames" + (f" of {self.size[1]}x{self.size[0]}" if self.size else ""),
            "keys": ", ".join(names[n] for n in sorted(keys)) or "none",
            "held out": ", ".join(names[n] for n in held) or "none",
            "masks": str(len(areas)) if masks else "none",
            "guides": ", ".join(guides) or "none",
        }
        if self.report.problems:
            return None
        good = {n: drawing for n, drawing in drawings.items() if drawing is not None}
        project = KeyframeProject(photo, good, areas, guides, names=names, held=held)
        project.files = self.files
        return project

    def _clip(self) -> tuple[Any, list[str]]:
        """Return the frames and their names."""
        given = self.settings.get("clip")
        place = None if given is None else user_path("clip", given)
        if place is not None and not place.is_absolute():
            place = next((base / place for base in (self.root, Path()) if (base / place).exists()), self.root / place)
        if place is None:
            videos = [f for f in sorted(self.root.iterdir()) if f.suffix.lower() in (*VIDEO_SUFFIXES, ".gif")]
            place = self.root / "frames" if (self.root / "frames").is_dir() else (videos[0] if videos else None)
            if len(videos) > 1 and place in videos:
                self.problem(f"there are {len(videos)} videos, such as '{videos[0].name}': set 'clip' to one.")
        if place is None or not place.exists():
            what = f"'{place}' does not exist" if place else "it has neither 'frames' nor a video"
            raise AnimegenError(
                f"The project '{self.root}' has no clip: {what}; put the frames into '{self.root / 'frames'}', or set"
                " clip= to a folder or a video."
            )
        if place.is_dir():
            files = list_images(place, recursive=False)
            names = [file.stem for file in files]
            for name in sorted({name for name in names if names.count(name) > 1}, key=natural_key):
                self.problem(f"several frames have the name '{name}': keep one.")
            first, last = self._range(len(files))
            files, names = files[first:last], names[first:last]
            self.files += files
            for file in files:
                self._look(file, "frame")
            return FrameFiles(files), names
        self.files.append(place)
        frames = self._video(place)
        first, last = self._range(len(frames))
        self.size = (int(frames.shape[-2]), int(frames.shape[-1]))
        # As FFmpeg and animegen stylize number the images that they make of a video.
        return frames[first:last], [f"{n + 1:06d}" for n in range(first, last)]

    def _video(self, place: Path) -> Tensor:
        """Return all frames of a video (T, 3, H, W) uint8."""
        frames = [pixels for pixels, _ in open_video(place)]
        if not frames:
            raise AnimegenError(f"The video '{place}' has no readable frame: choose another clip.")
        return torch.stack(frames)

    def _range(self, count: int) -> tuple[int, int]:
        """Return the first frame and the end (exclusive) of the clip."""
        given = self.settings.get("range")
        if given is None:
            return 0, count
        if len(given) != 2 or not 0 <= given[0] < given[1] <= count:
            self.problem(f"range {given} does not fit a clip of {count} frames: use [first, end (exclusive)].")
            return 0, count
        return int(given[0]), int(given[1])

    def _look(self, file: Path, what: str, scaled: bool = False) -> Tensor | None:
        """Validate format, transparency, content and size of an image; return it if it is valid."""
        before = len(self.report.problems)
        try:
            with open_image(file) as image:
                suffixes = FORMATS.get(str(image.format))
                if suffixes and file.suffix.lower() not in suffixes:
                    self.problem(
                        f"the {what} '{file.name}' has {image.format} data and the suffix {file.suffix}, so it may have"
                        f" lost quality: export it again, or rename it to {suffixes[0]}."
                    )
                if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                    self.problem(f"the {what} '{file.name}' has transparent pixels: add a background.")
                image.load()  # the header may be valid and the rest truncated
            pixels = read_image(file)
        except AnimegenError as error:
            self.problem(f"the {what} '{file.name}' cannot be read: {error}")
            return None
        except Exception as error:  # Pillow's plug-ins raise nearly every kind of exception
            self.problem(f"the {what} '{file.name}' cannot be read ({type(error).__name__}): replace it.")
            return None
        size = (int(pixels.shape[-2]), int(pixels.shape[-1]))  # after the EXIF orientation
        if self.size is None:
            self.size = size
        elif size != self.size and not scaled:
            more = " or set resize=true" if what in ("drawing", "mask") else ""
            self.problem(
                f"the {what} '{file.name}' has {size[1]}x{size[0]} pixels, the frames have"
                f" {self.size[1]}x{self.size[0]}: scale it{more}."
            )
        return pixels if len(self.report.problems) == before else None

    def _matched(self, folder: str, names: list[str], what: str) -> dict[int, Path]:
        """Return frame number -> image of a folder whose images have the names of their frames."""
        place = self.root / folder
        if not place.is_dir():
            return {}
        numbers = {name: n for n, name in enumerate(names)}
        # The names of a video's frames are numbers: 000012 is 12.
        plain = {str(int(name)): n for name, n in numbers.items() if name.isdecimal()}
        found: dict[int, Path] = {}
        for file in sorted(place.iterdir(), key=lambda f: natural_key(f.name)):
            if file.suffix.lower() not in EXTENSIONS or file.name.startswith("."):
                continue
            stem = str(int(file.stem)) if file.stem.isdecimal() else file.stem
            number = numbers.get(file.stem, plain.get(stem))
            if number is None:
                self.problem(f"the {what} '{file.name}' matches no frame: rename it.{did_you_mean(file.stem, names)}")
            elif number in found:
                self.problem(f"'{found[number].name}' and '{file.name}' match the same frame as its {what}: keep one.")
            else:
                found[number] = file
        self.files += found.values()
        return found

    def _drawing(self, file: Path, name: str) -> Tensor | None:
        pixels = self._look(file, "drawing", scaled=self.resize)
        return None if pixels is None or self.size is None else resized(pixels, self.size)

    def _mask(self, file: Path) -> Tensor | None:
        pixels = self._look(file, "mask", scaled=self.resize)
        if pixels is None or self.size is None:
            return None
        # Threshold in the middle of the range, as in the released code of Texler et al. 2020.
        area = resized(pixels, self.size).float().mean(0) > 128
        if not bool(erode(area[None]).any()):
            self.problem(f"the mask '{file.name}' leaves no position for a patch: enlarge its white area.")
            return None
        return area

    def _guides(self, names: list[str]) -> dict[str, GuideFiles]:
        root = self.root / "guides"
        folders = sorted(f for f in root.iterdir() if f.is_dir()) if root.is_dir() else []
        wanted = dict(self.settings.get("guides") or {})
        guides = {}
        for folder in folders:
            files = self._matched(f"guides/{folder.name}", names, f"image of the guide '{folder.name}'")
            missing = [name for n, name in enumerate(names) if n not in files]
            if missing:
                self.problem(
                    f"the guide '{folder.name}' lacks {len(missing)} of {len(names)} frames, such as '{missing[0]}':"
                    " add an image for every frame."
                )
            counts: dict[int, str] = {}
            for file in files.values():
                self._look_guide(file, folder.name, counts)
            if len(counts) > 1:
                found = " and ".join(f"{count} ('{name}')" for count, name in sorted(counts.items()))
                self.problem(f"the images of the guide '{folder.name}' differ in their number of channels: {found}.")
            asked = wanted.pop(folder.name, None)
            if asked is not None and counts and set(counts) != {asked}:
                self.problem(
                    f"the guide '{folder.name}' has {next(iter(counts))} channels, not {asked}: export it again."
                )
            guides[folder.name] = GuideFiles([files[n] for n in sorted(files)])
        for name in wanted:
            self.problem(f"the guide '{name}' has no folder 'guides/{name}': add it, or remove the guide.")
        return guides

    def _look_guide(self, file: Path, name: str, counts: dict[int, str]) -> None:
        try:
            pixels = read_channels(file)
            counts.setdefault(len(pixels), file.name)
            size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        except Exception as error:
            self.problem(f"'{file.name}' of the guide '{name}' cannot be read ({type(error).__name__}): replace it.")
            return
        if self.size is not None and size != self.size:
            self.problem(
                f"'{file.name}' of the guide '{name}' has {size[1]}x{size[0]} pixels, the frames have"
                f" {self.size[1]}x{self.size[0]}: scale it."
            )

    def _held(self, keys: dict[int, Path], names: list[str]) -> list[int]:
        """Return the numbers of the keys to hold out."""
        given = self.settings.get("hold_out") or []
        numbers = sorted(keys)
        if isinstance(given, int):
            if given >= max(len(numbers), 1):
                self.problem(f"{given} of {len(numbers)} keys cannot be held out: keep at least one for training.")
                return []
            # Hold out inner keys first, since frames beyond the outer keys cannot be interpolated.
            inner = numbers[1:-1] if len(numbers) - 2 >= given else numbers[1:]
            return [inner[(2 * k + 1) * len(inner) // (2 * given)] for k in range(given)]
        stems = {file.stem: n for n, file in keys.items()}
        for stem in given:
            if str(stem) not in stems:
                self.problem(f"hold_out has the unknown key '{stem}'.{did_you_mean(str(stem), stems)}")
        held = [stems[str(stem)] for stem in given if str(stem) in stems]
        if keys and len(held) == len(keys):
            self.problem("all keys are held out: keep at least one for training.")
        return sorted(held)


def _manifest(root: Path, report: Report) -> dict[str, Any]:
    """Return the valid settings of project.yaml."""
    file = root / MANIFEST
    if not file.is_file():
        return {}
    try:
        content = plain_data(yaml.safe_load(read_text(file)), f"'{MANIFEST}'")
    except AnimegenError as error:
        report.problems.append(str(error))
        return {}
    except (yaml.YAMLError, RecursionError) as error:
        report.problems.append(f"'{MANIFEST}' is not valid YAML ({' '.join(str(error).split())[:100]}).")
        return {}
    if not isinstance(content, dict):
        report.problems.append(f"'{MANIFEST}' must be a mapping with the keys {', '.join(KEYS)}.")
        return {}
    for key in [key for key in content if key not in KEYS]:
        report.problems.append(f"'{MANIFEST}' has the unknown key '{key}'.{did_you_mean(str(key), KEYS)}")
        del content[key]
    return content
