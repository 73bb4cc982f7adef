"""The keys of ``animegen prepare``; this module imports no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from animegen.config.common import LARGEST_SEED, OverwriteOptions
from animegen.config.options import Options, option
from animegen.errors import AnimegenError

VIDEOS = "Data sets of clips; levels are of 255, motion is a share of the width"
GENERATED = "Generated videos"
PROJECTS = "Key-frame projects"


@dataclass
class Rules(Options):
    """Rules that select the frames of clips."""

    length: list[int] = option([5, 25], "drawings per clip, from and to", minimum=3, maximum=100_000, section=VIDEOS)
    every: int = option(
        1, "frame stride: 2 for animation on twos that is to keep its time", minimum=1, maximum=1000, section=VIDEOS
    )
    held: float = option(
        0.0,
        "a frame repeats a drawing if its sameness is above this (equal frames: 4.09); 10 keeps all",
        section=VIDEOS,
    )
    dark: float = option(16.0, "smallest mean brightness", minimum=0, maximum=255, section=VIDEOS)
    bright: float = option(245.0, "largest mean brightness", minimum=0, maximum=255, section=VIDEOS)
    flicker: float = option(
        12.0, "largest change of the mean brightness from drawing to drawing", minimum=0, section=VIDEOS
    )
    fast: float = option(0.2, "largest motion from drawing to drawing (98th percentile)", minimum=0, section=VIDEOS)
    unexplained: float = option(
        10.0, "largest difference that motion leaves: dissolves, effects, missed cuts", minimum=0, section=VIDEOS
    )
    still: float = option(0.00065, "smallest motion, as the median of a clip", minimum=0, section=VIDEOS)
    uneven: float = option(
        2.0, "largest factor between the durations of the drawings of a clip", minimum=1, section=VIDEOS
    )
    per_shot: int | None = option(None, "most clips of one shot; null: all", minimum=1, section=VIDEOS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.length) > 2 or self.length[0] > self.length[-1]:
            raise AnimegenError(f"length={self.length} is not valid: give from and to, such as length=[15,25].")
        if self.dark >= self.bright:
            raise AnimegenError(f"dark={self.dark:g} and bright={self.bright:g} exclude all frames: change one.")


@dataclass
class Writing(Options):
    """Format of the written frames."""

    short_side: int | None = option(
        540, "frames are scaled down to this; null keeps their size", minimum=32, maximum=100_000, section=VIDEOS
    )
    format: Literal["jpg", "png", "webp"] = option("jpg", "of the frames", section=VIDEOS)
    bars: bool = option(True, "remove black bars", section=VIDEOS)


@dataclass
class Curation(Rules, Writing):
    """Settings of a data set of videos."""

    repeat: int | None = option(
        4,
        "bits of 64 in which a clip must differ from those of earlier shots; null keeps repeats",
        minimum=0,
        maximum=64,
        section=VIDEOS,
    )
    holdout: float = option(
        0.1, "share of the movies for validation, and as much for test", above=0, maximum=0.49, section=VIDEOS
    )


@dataclass
class PrepareOptions(Curation, OverwriteOptions):
    """Make data sets from videos, render a ToonWorld video, or work on a key-frame project.

    One of the first six keys selects the task. A video is cut into shots; held drawings, dark and flickering frames,
    frames that do not move, move too far or without explanation, and repeated clips are omitted; the report says why.
    An interrupted command continues where it stopped. Train with data=triplets/folders data.folder=dataset.

    -m distributes the videos with any Hydra launcher: animegen prepare -m input=videos/ output=dataset
    shard=0,1,2,3.

    A key-frame project is a folder with frames/ (or a video) and keys/, the drawings of some frames under the names of
    their frames; optionally masks/ (white: to be learnt) and guides/<name>/.

    Exit code: 0 done, 1 if check found problems or a video could not be read, 2 invalid options.
    """

    command: ClassVar[str] = "prepare"
    examples: ClassVar[Sequence[str]] = (
        "input=videos/ output=dataset",
        "input=videos/ output=scenes every=2 length=[15,25]",
        "toonworld=photo output=video.mp4",
        "toonworld=meadow output=twos.mkv shots=[48,48] side=256 hold=2",
        "check=my_clip",
        "suggest_keys=my_clip count=3",
        "filter=my_clip output=clean_frames",
        "import=theirs_train output=my_clip",
    )

    input: str | None = option(None, "a video, or a folder of videos: make clips in output", path=True)
    toonworld: Literal["photo", "meadow", "dusk", "print"] | None = option(
        None, "look of a ToonWorld video with sound, to write to output"
    )
    check: str | None = option(None, "a key-frame project: report all problems", path=True)
    suggest_keys: str | None = option(
        None, "a project: suggest which frames to paint first or next, and write them to its to_paint/", path=True
    )
    filter: str | None = option(None, "a project: write its frames without their noise to output", path=True)
    imported: str | None = option(
        None,
        "a project of Few-Shot-Patch-Based-Training or a port of it: copy it to output",
        path=True,
        name="import",
    )
    output: str | None = option(None, "where results go", path=True)
    jobs: int = option(1, "videos at a time", minimum=1, maximum=1024, section=VIDEOS)
    shard: str | None = option(None, "0/4: the first of four shares of the videos", section=VIDEOS)
    shots: list[int] = option(
        [24, 24], "frames of each shot; a cut between", minimum=1, maximum=100_000, section=GENERATED
    )
    side: int = option(128, "height and width in pixels", minimum=16, maximum=4096, section=GENERATED)
    hold: int | None = option(
        None, "frames for which a drawing is held; null draws each", minimum=1, maximum=1000, section=GENERATED
    )
    scene: int = option(0, "number of the first scene", minimum=0, maximum=LARGEST_SEED, section=GENERATED)
    world_seed: int = option(0, "seed of ToonWorld", minimum=0, maximum=LARGEST_SEED, section=GENERATED)
    clip: str | None = option(None, "frames or video, if outside of the project", path=True, section=PROJECTS)
    count: int = option(3, "frames to suggest", minimum=1, maximum=10_000, section=PROJECTS)
    radius: int = option(15, "frames on each side that the filter averages", minimum=0, maximum=1000, section=PROJECTS)
    resize: bool = option(False, "scale drawings and masks to their frames", section=PROJECTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        tasks = dict.fromkeys(("input", "toonworld", "check", "suggest_keys", "filter", "import"), True)
        tasks |= {"check": False, "suggest_keys": False}
        given = [task for task in tasks if getattr(self, "imported" if task == "import" else task) is not None]
        if len(given) != 1:
            asked = " and ".join(given) or "none"
            raise AnimegenError(f"animegen prepare needs one of the keys {', '.join(tasks)}; given: {asked}.")
        if tasks[given[0]] and self.output is None:
            raise AnimegenError(f"animegen prepare {given[0]}= needs output=.")
        if not tasks[given[0]] and self.output is not None:
            raise AnimegenError(f"animegen prepare {given[0]}= takes no output=: omit it.")
        self.share()

    def share(self) -> tuple[int, int]:
        """Return (k, n) of ``shard=k/n``."""
        number, _, count = (self.shard or "0/1").partition("/")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
            raise AnimegenError(f"shard={self.shard} is not valid: use k/n with k from 0 to n - 1, such as 0/4.")
        return int(number), int(count)
