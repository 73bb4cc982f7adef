"""The keys of the commands that apply a model: ``stylize``, ``interpolate``, ``generate`` and ``export``.

This module imports no PyTorch, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import ClassVar, Literal

from animegen.config.common import (
    CheckpointOptions,
    ComputeOptions,
    EncodingOptions,
    ImageFormat,
    OverwriteOptions,
    PrecisionOptions,
)
from animegen.config.options import option
from animegen.errors import AnimegenError

#: The largest number of pixels on a side that any image or tile may have.
LARGEST_SIDE = 100_000


class OnError(Enum):
    """What to do about an image or a video that cannot be read."""

    skip = "skip"
    fail = "fail"


@dataclass
class StylizeOptions(CheckpointOptions, ComputeOptions, PrecisionOptions, EncodingOptions, OverwriteOptions):
    """Turn images and videos into anime with a trained model.

    Images keep orientation, EXIF data, colour profile and transparency where the format can hold them. Videos keep
    every time stamp, sound and subtitles. A video that goes to a folder becomes images, and a folder of images that
    goes to a video becomes a video. If a video is interrupted, the same command continues after the last finished
    shot.

    Exit code: 0 all done, 1 something was skipped or is incomplete, 2 a mistake in the command.
    """

    command: ClassVar[str] = "stylize"
    examples: ClassVar[Sequence[str]] = (
        "checkpoint=last input=photo.jpg output=anime.jpg",
        "checkpoint=runs/my_run input=photos/ output=anime/ precision=bf16",
        "checkpoint=last input=photos/ output=anime/ strength=0.7 max_side=1920 format=png",
        "checkpoint=last input=video.mp4 output=anime.mp4 crf=20 max_side=1280",
        "checkpoint=last input=frames/%05d.png fps=24000/1001 output=anime.mkv",
        "checkpoint=last input=video.mp4 output=anime.mp4 style=[a.jpg,b.jpg] style_weights=[0.7,0.3]",
    )

    input: str = option(help="an image, a video, numbered frames (frames/%05d.png), or a folder", path=True)
    output: str = option(help="an image, a video (.mp4 .mkv .mov .gif), or a folder", path=True)
    strength: float = option(1.0, "0 is the input, 1 the stylized image", minimum=0, maximum=1)
    style: list[str] | None = option(
        None, "images in the wanted style, or a folder of them, for models that take any (temporal)", path=True
    )
    style_weights: list[float] | None = option(None, "weight of each style image; null: equal", minimum=0)
    tile: int | Literal["auto"] = option(
        "auto", "largest side that is computed in one piece; 0: no tiles", minimum=64, maximum=LARGEST_SIDE, also=(0,)
    )
    max_side: int | None = option(None, "scale larger images down to this side", minimum=1, maximum=LARGEST_SIDE)
    format: ImageFormat = option(ImageFormat.keep, "of images")
    recursive: bool = option(True, "look into the folders inside the input folder")
    on_error: OnError = option(OnError.skip, "what to do about files that cannot be read")
    fps: Fraction | None = option(None, "frame rate of numbered frames; null: 24", above=0, maximum=1000)
    cuts: bool = option(True, "find cuts, at which models with a memory are reset")
    prefilter: bool = option(
        True, "remove noise from videos for models that were trained on frames without noise; false: never"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style is None and self.style_weights is not None:
            raise AnimegenError("style_weights= belongs to style images: set style= as well.")
