"""Curation of one video: measures its frames, selects and writes clips, and records every decision."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypedDict

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.config.mismatch import mismatch
from animegen.config.plain import read_json
from animegen.curation.facts import Bars, measure
from animegen.curation.options import Curation, Writing
from animegen.curation.rules import Case, Choice, choose
from animegen.data.views import scale_short_side
from animegen.errors import AnimegenError
from animegen.files import completed, real_path, regular_file, user_path
from animegen.media.images import write_image
from animegen.media.kinds import Kind, kinds_in
from animegen.media.video.reader import VideoReader
from animegen.media.video.shots import detect_shots

#: Folder in the data set with the record of each video, and small images of close decisions.
RECORDS = ".curation"
#: Number of cases kept per rule and side of each video, and smallest distance between them in frames.
CASES, APART = 6, 12
#: End of a name that numbers the parts of a video.
_PART = re.compile(r"[\s_.(\[-]*(?:part|pt|cd|disc|disk|dvd|reel)[\s_.-]*\d+[)\]]?$", re.IGNORECASE)
#: Sides of a small image.
THUMB = (90, 160)


def find_videos(source: str | Path) -> dict[str, Path]:
    """Return the videos of a folder and its sub-folders, or a single one, by unique names.

    Raises:
        AnimegenError: if there are no videos.
    """
    place = user_path("input", source)
    if not place.is_dir():
        regular_file(place)
        files = [place]
    else:
        files = sorted(path for path, kind in kinds_in(place).items() if kind in (Kind.video, Kind.animation))
    if not files:
        raise AnimegenError(f"There are no videos in '{place}' or the folders inside it: name another folder.")
    videos: dict[str, Path] = {}
    for file in files:
        name = _plain(file.stem)
        number = 2
        while name in videos:
            name, number = f"{_plain(file.stem)}-{number}", number + 1
        videos[name] = file
    return videos


def movies_of(videos: Mapping[str, Path]) -> dict[str, str]:
    """Return the movie of each video: videos in one folder, and numbered parts, belong together.

    Below the folder that holds all videos the uppermost folder is the movie (a season, a disc, the parts of a video).
    Videos in one folder are separate movies, except for parts numbered at the end of the name: ``show_e01_part2``.

    Args:
        videos: as :func:`find_videos` returns them.
    """
    places = {name: Path(real_path(path)).parent for name, path in videos.items()}
    top = Path(os.path.commonpath(places.values()))
    movies = {}
    for name, path in videos.items():
        folders = places[name].relative_to(top).parts
        movies[name] = f"{folders[0]}/" if folders else _PART.sub("", path.stem) or path.stem
    return movies


def identity(path: Path) -> list[Any]:
    """Return name, size and time of the last change of a video.

    Raises:
        AnimegenError: if it cannot be examined, or is no regular file.
    """
    facts = regular_file(path)
    return [path.name, facts.st_size, facts.st_mtime_ns]


class FailedVideo(TypedDict):
    """The record of a video that could not be read."""

    video: str
    source: list[Any]
    failed: str


class CuratedClip(TypedDict):
    """A clip in the record of a video."""

    name: str
    shot: int
    start: float
    frames: list[int]
    looks: list[str]


class CuratedVideo(TypedDict):
    """The record of a video."""

    video: str
    source: list[Any]
    seconds: float
    frames: int
    size: list[int]
    fates: dict[str, Any]
    clips: list[CuratedClip]
    cases: list[dict[str, Any]]
    problems: list[str]


def record_of(output: Path, name: str) -> dict[str, Any] | None:
    """Return the record of a video in a data set, or ``None`` if it is missing, incomplete or damaged."""
    try:
        record = read_json(output / RECORDS / f"{name}.json", "the record of a video", "make it again")
    except AnimegenError:
        return None
    fits = (
        mismatch(record, FailedVideo if isinstance(record, dict) and "failed" in record else CuratedVideo, "it") is None
    )
    return record if fits else None


def curate_video(name: str, path: Path, output: Path, how: Curation) -> dict[str, Any]:
    """Write the clips of a video into ``output/name/<clip>/<frame>``; return its record, which is written last.

    A video that cannot be read gets a record with the key ``failed``. A part that cannot be read is reported in
    ``problems``. Files left by an interrupted run are replaced.
    """
    torch.set_num_threads(1)  # videos run side by side
    cv2.setNumThreads(1)
    record: dict[str, Any] = {"video": name}
    try:
        record["source"] = identity(path)
        record |= _curated(name, path, output, how)
    except AnimegenError as error:
        record["failed"] = str(error)
    with completed(output / RECORDS / f"{name}.json") as hidden:
        hidden.write_text(json.dumps(record, indent=1) + "\n")
    return record


def _curated(name: str, path: Path, output: Path, how: Curation) -> dict[str, Any]:
    reader = VideoReader(path)
    shots = detect_shots(pixels for pixels, _ in reader)
    bars = Bars()
    facts = list(measure(reader, shots, how.every, how.held, bars))
    choice = choose(facts, how)
    box = bars.box() if how.bars else (0, reader.info.height, 0, reader.info.width)
    cases = near_cases(choice.cases)
    _write(reader, name, output, choice, cases, box, how)
    end = reader.end
    return {
        "seconds": float(end),
        "frames": shots[-1][1],
        "size": [reader.info.width, reader.info.height],
        "box": box,
        "shots": shots,
        "fates": choice.counts(shots[-1][1]),
        "clips": [
            {
                "name": f"{name}/{_clip_name(number)}",
                "shot": clip.shot,
                "start": float(clip.frames[0].time),
                "frames": [fact.number for fact in clip.frames],
                "looks": [f"{look:016x}" for look in clip.looks],
            }
            for number, clip in enumerate(choice.clips)
        ],
        "cases": [asdict(case) for case in cases],
        "problems": reader.problems,
    }


def near_cases(cases: list[Case]) -> list[Case]:
    """Return the cases nearest to the limits: a few per rule and side, at different moments."""
    chosen: list[Case] = []
    for case in sorted(cases, key=lambda case: case.distance):
        alike = [c for c in chosen if (c.rule, c.passed) == (case.rule, case.passed)]
        if len(alike) < CASES and all(abs(c.number - case.number) >= APART for c in alike):
            chosen.append(case)
    return chosen


def thumb_name(number: int) -> str:
    """Return the file name of the small image of a frame."""
    return f"{number:06}.jpg"


def _write(
    reader: VideoReader,
    name: str,
    output: Path,
    choice: Choice,
    cases: list[Case],
    box: tuple[int, int, int, int],
    writing: Writing,
) -> None:
    """Write the frames of the clips, and small ones of the cases; the video's folder appears when it is complete."""
    places = {
        fact.number: f"{_clip_name(number)}/{fact.number:06}.{writing.format}"
        for number, clip in enumerate(choice.clips)
        for fact in clip.frames
    }
    thumbs = {number for case in cases for number in (case.number, case.other)}
    for left in (output / RECORDS).glob(f"{name}~*.part"):
        shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
    partial = output / RECORDS / f"{name}~{uuid.uuid4().hex}.part"
    top, bottom, left, right = box
    try:
        for number, (pixels, _) in enumerate(reader):
            if number in thumbs:
                small = F.interpolate(pixels[None], THUMB, mode="bilinear", antialias=True)[0]
                write_image(output / RECORDS / name / thumb_name(number), small, quality=85)
            if number in places:
                write_image(partial / places[number], _scaled(pixels[:, top:bottom, left:right], writing.short_side))
        if not all((partial / place).exists() for place in places.values()):
            return  # another process has taken over this video
        shutil.rmtree(output / name, ignore_errors=True)
        if partial.exists():
            partial.rename(output / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _scaled(pixels: Tensor, short_side: int | None) -> Tensor:
    if short_side is None or min(pixels.shape[1:]) <= short_side:
        return pixels
    return scale_short_side(pixels, short_side)


def _clip_name(number: int) -> str:
    return f"clip{number:04}"


def _plain(stem: str) -> str:
    """Return a name that is valid as a folder and as a line of a list."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in stem).strip("._")
    return kept or "video"
