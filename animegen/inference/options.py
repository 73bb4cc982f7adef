"""The keys of the commands that apply a model: ``stylize``, ``interpolate``, ``generate`` and ``export``.

This module imports no PyTorch, so that ``--help`` and mistakes are answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Literal

from animegen.config.common import (
    LARGEST_SEED,
    VIDEO,
    CheckpointOptions,
    ComputeOptions,
    Device,
    EncodingOptions,
    ImageFormat,
    LookOptions,
    OverwriteOptions,
    PrecisionOptions,
)
from animegen.config.looks import look_for
from animegen.config.options import Options, option
from animegen.errors import AnimegenError

#: The largest number of pixels on a side that any image or tile may have.
LARGEST_SIDE = 100_000


class OnError(Enum):
    """What to do about an image or a video that cannot be read."""

    skip = "skip"
    fail = "fail"


class Deinterlace(Enum):
    """What becomes of interlaced frames."""

    none = "none"
    auto = "auto"


@dataclass
class PartOptions(Options):
    """Which part of a video is read, and how."""

    start: Fraction | None = option(None, "second of a video at which to begin", minimum=0, section=VIDEO)
    end: Fraction | None = option(None, "second of a video at which to end", above=0, section=VIDEO)
    deinterlace: Deinterlace = option(
        Deinterlace.none, "auto: make whole frames of interlaced ones (FFmpeg's bwdif)", section=VIDEO
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise AnimegenError(f"start={self.start} is not before end={self.end}: change one of them.")


@dataclass
class StylizeOptions(LookOptions, ComputeOptions, PrecisionOptions, PartOptions, EncodingOptions, OverwriteOptions):
    """Turn images and videos into anime with a shipped look or a trained model.

    Images keep orientation, EXIF data, colour profile and transparency where the format can hold them. Videos keep
    every time stamp, sound and subtitles, and ten bits per colour and transparency where the codec has them. A video
    that goes to a folder becomes images, and a folder of images that goes to a video becomes a video. If a video is
    interrupted, the same command continues after the last finished shot.

    Exit code: 0 all done, 1 something was skipped or is incomplete, 2 invalid options.
    """

    command: ClassVar[str] = "stylize"
    examples: ClassVar[Sequence[str]] = (
        "input=photo.jpg output=drawn.jpg",
        "look=cel input=photos/ output=drawn/ line_width=2",
        "checkpoint=last input=photo.jpg output=anime.jpg",
        "checkpoint=runs/my_run input=photos/ output=anime/ precision=bf16",
        "checkpoint=last input=photos/ output=anime/ strength=0.7 max_side=1920 format=png",
        "checkpoint=last input=video.mp4 output=anime.mp4 crf=20 max_side=1280",
        "checkpoint=last input=frames/%05d.png fps=24000/1001 output=anime.mkv",
        "checkpoint=last input=video.mp4 output=anime.mp4 style=[a.jpg,b.jpg] style_weights=[0.7,0.3]",
    )

    input: str = option(help="an image, a video, numbered frames (frames/%05d.png), or a folder", path=True)
    output: str = option(help="an image, a video (.mp4 .mov .mkv .webm .gif .webp .apng), or a folder", path=True)
    strength: float = option(1.0, "0 is the input, 1 the stylized image", minimum=0, maximum=1)
    style: list[str] | None = option(
        None, "images in the wanted style, or a folder of them, for models that take any (temporal)", path=True
    )
    style_weights: list[float] | None = option(None, "weight of each style image; null: equal", minimum=0)
    tile: int | Literal["auto"] = option(
        "auto",
        "largest side computed in one piece; 0: no tiles. In tiles, the memory besides the image itself (8 bits per"
        " colour, read and written) does not grow with its size. Not for models that need the whole image",
        minimum=64,
        maximum=LARGEST_SIDE,
        also=(0,),
    )
    max_side: int | None = option(None, "scale larger images down to this side", minimum=1, maximum=LARGEST_SIDE)
    line_width: float | Literal["auto"] = option(
        "auto",
        "2 draws at half the size and enlarges the drawing with crisp edges, so that lines are twice as wide; auto: by"
        " the size of images with a longer side of 1500 pixels and more; 1: as the model draws",
        minimum=1,
        maximum=100,
    )
    format: ImageFormat = option(ImageFormat.keep, "of images")
    compare: Literal["input"] | None = option(None, "input: the input to the left of the output, twice as wide")
    recursive: bool = option(True, "look into the folders inside the input folder")
    on_error: OnError = option(OnError.skip, "what to do about files that cannot be processed")
    fps: Fraction | None = option(None, "frame rate of numbered frames; null: 24", above=0, maximum=1000)
    cuts: bool = option(True, "find cuts, at which models with a memory are reset")
    prefilter: bool = option(
        True, "remove noise from videos for models that were trained on frames without noise; false: never"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style is None and self.style_weights is not None:
            raise AnimegenError("style_weights= belongs to style images: set style= as well.")


class Method(Enum):
    """How frames between two frames are made."""

    auto = "auto"
    model = "model"
    dis = "dis"
    blend = "blend"


class Holds(Enum):
    """What becomes of drawings that are held for several frames."""

    keep = "keep"
    smooth = "smooth"
    auto = "auto"


@dataclass
class InterpolateOptions(LookOptions, ComputeOptions, PrecisionOptions, PartOptions, EncodingOptions, OverwriteOptions):
    """Draw the frames between images, or between the frames of a video.

    Videos keep duration, sound and subtitles; every time stamp is exact, and the frames of the source stay as they
    are. Ten bits per colour and transparency are kept where the codec has them. If the command is interrupted, the same
    command continues after the last finished shot. Readable frames of a damaged video are processed; missing ones are
    reported, and the exit code is 1.
    """

    command: ClassVar[str] = "interpolate"
    examples: ClassVar[Sequence[str]] = (
        "checkpoint=last input=[a.png,b.png] output=between/ factor=4",
        "checkpoint=runs/my_run input=frames/ output=more_frames/",
        "checkpoint=last input=video.mp4 output=smooth.mp4 fps=60",
        "checkpoint=last input=video.mp4 output=smooth.mp4 factor=2 holds=smooth",
        "checkpoint=last input=video.mp4 output=slow.mp4 slowmo=4",
        "input=video.mp4 output=smooth.mp4 factor=2",
        "checkpoint=last input=video.mp4 selfcheck=true",
    )

    input: list[str] = option(
        help="a video, a folder of frames, numbered frames (frames/%05d.png), or two or more images [a.png,b.png]",
        path=True,
    )
    output: str | None = option(
        None, "a video (.mp4 .mov .mkv .webm .gif .webp .apng), or a folder for images; selfcheck needs none", path=True
    )
    factor: Fraction | None = option(
        None, "frames per frame, such as 2.5; null: 2, unless fps or slowmo is given", above=1, maximum=1000
    )
    fps: Fraction | None = option(None, "frames per second, such as 60 or 60000/1001", above=0, maximum=1000)
    method: Method = option(
        Method.auto,
        "model: a checkpoint or a look; dis: both frames warped along optical flow (DIS); blend: a cross-fade; auto:"
        " the model that is named, else the usual look if one ships, else dis",
    )
    slowmo: Fraction | None = option(
        None,
        "how many times as long a video becomes, at its own rate unless factor or fps is given",
        above=1,
        maximum=1000,
    )
    input_fps: Fraction | None = option(None, "rate of images; null: 24", above=0, maximum=1000)
    holds: Holds = option(
        Holds.keep,
        "drawings held for several frames. keep: they stay, only what moved moves; smooth: motion takes the whole"
        " hold; auto: smooth in shots that are animated on twos, threes or fours throughout",
    )
    cuts: bool = option(True, "find cuts and flashes, and draw nothing across them")
    neighbours: bool = option(
        True, "dis: motion is accelerated as the frames before and after a pair tell; false: it is uniform"
    )
    estimates: int = option(
        2,
        "dis: estimates of the flow that are averaged; further ones take as long, and gain little",
        minimum=1,
        maximum=4,
    )
    confidence: float = option(
        0.0, "pairs of which a smaller share matches are not interpolated, such as 0.5", minimum=0, maximum=1
    )
    tile: int | Literal["auto"] = option(
        "auto",
        "largest side computed in one piece; 0: no tiles. In tiles, the memory besides the frames themselves grows with"
        " one row of tiles only",
        minimum=128,
        maximum=LARGEST_SIDE,
        also=(0,),
    )
    compare: Literal["input"] | None = option(None, "input: the input to the left of the output, twice as wide")
    selfcheck: bool = option(False, "leave out every other drawing, draw it, and compare; writes nothing")
    samples: int = option(24, "drawings that selfcheck compares at most", minimum=1, maximum=100_000)
    format: ImageFormat = option(ImageFormat.keep, "of images")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method is Method.auto:
            self.method = Method.model if self.checkpoint else Method.dis
        if not self.needs_model and (self.checkpoint or self.look):
            raise AnimegenError(f"method={self.method.value} applies no model: omit checkpoint= and look=.")
        if self.estimates != 2 and self.method is not Method.dis:
            raise AnimegenError(f"estimates={self.estimates} is for method=dis, which applies no model: omit it.")
        if self.factor is not None and self.fps is not None:
            raise AnimegenError("factor= and fps= contradict each other: leave one of them out.")
        if self.selfcheck and self.output:
            raise AnimegenError("selfcheck=true writes nothing: omit output=.")
        if self.selfcheck and self.compare:
            raise AnimegenError("selfcheck=true makes no video to compare with its input: omit compare=.")
        if not self.selfcheck and not self.output:
            raise AnimegenError("Missing on the command line: output=<video or folder>.")

    @property
    def needs_model(self) -> bool:
        """Whether a model is applied: ``method=dis`` and ``method=blend`` need none."""
        if self.method is Method.auto:
            return bool(self.checkpoint or self.look or look_for(self.command))
        return self.method is Method.model


@dataclass
class GenerateOptions(LookOptions, ComputeOptions, PrecisionOptions, EncodingOptions, OverwriteOptions):
    """Draw a clip between a first and a last image, or through several key frames.

    The given images appear unchanged in the clip. Models that draw single frames at any time (interpolation) can be
    used as well; they are deterministic, so that temperature, top_k, top_p, steps, guidance, greedy, seed and samples
    have no meaning.
    """

    command: ClassVar[str] = "generate"
    examples: ClassVar[Sequence[str]] = (
        "checkpoint=last first=a.png last=b.png output=clip.mp4",
        "checkpoint=last first=a.png last=b.png frames=24 output=clip.gif samples=4 temperature=0.8",
        "checkpoint=runs/my_run keys=[a.png,b.png,c.png] frames=9 output=frames/",
    )

    output: str = option(help="a video (.mp4 .mov .mkv .webm .gif .webp .apng), or a folder for images", path=True)
    first: str | None = option(None, "the first image", path=True)
    last: str | None = option(None, "the last image, of the same size", path=True)
    keys: list[str] | None = option(None, "or two or more images: [a.png,b.png,c.png]", path=True)
    frames: int = option(16, "from one image to the next, both included", minimum=3, maximum=10_000)
    fps: Fraction = option(Fraction(24), "frames per second", above=0, maximum=1000)
    samples: int = option(
        1, "clips: clip_1.gif, clip_2.gif ... and clip.gif, small, with all side by side", minimum=1, maximum=64
    )
    temperature: float | None = option(
        None, "randomness of the codes; null, here and below: as the model was set", above=0, maximum=100
    )
    top_k: int | None = option(None, "choose among this many most likely codes", minimum=1, maximum=1_000_000)
    top_p: float | None = option(None, "choose among the likeliest codes of this total probability", above=0, maximum=1)
    steps: int | None = option(None, "passes of decoders that fill in masked codes", minimum=1, maximum=10_000)
    guidance: float | None = option(None, "influence of the last frame: 1 as trained, 0 none", minimum=0, maximum=1000)
    greedy: bool | None = option(None, "always take the most likely code")
    seed: int | None = option(None, "of the random numbers", minimum=0, maximum=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keys is not None and (self.first is not None or self.last is not None):
            raise AnimegenError("keys=[...] names all key frames: leave first= and last= out.")
        if self.keys is None:
            for name in ("first", "last"):
                if getattr(self, name) is None:
                    raise AnimegenError(f"{name}= is missing: name two images, first=a.png last=b.png, or keys=[...].")
        elif len(self.keys) < 2:
            raise AnimegenError("keys=[...] needs two images at least: keys=[a.png,b.png].")

    def images(self) -> list[Path]:
        """Return the key frames."""
        return [Path(name) for name in (self.keys or (self.first, self.last)) if name is not None]


class FileFormat(Enum):
    """Format of an exported model."""

    pt2 = "pt2"
    onnx = "onnx"
    look = "look"


@dataclass
class ExportOptions(CheckpointOptions, OverwriteOptions):
    """Save a model as one file that runs without animegen, or as a look.

    A pt2 or ONNX file is one function: images (batch,3,height,width), RGB, float32 in [-1,1], to stylized images of
    the same shape and range. Height and width are free, and so is the batch for most models; the smallest side is in
    its metadata. Before the file gets its name it is run and compared with the model on images of several sizes.

    A look is a folder with a small checkpoint, half-precision weights of what the application of the model needs, and
    a card README.md to complete.
    """

    command: ClassVar[str] = "export"
    examples: ClassVar[Sequence[str]] = (
        "checkpoint=last format=onnx output=anime.onnx",
        "checkpoint=runs/my_run format=pt2 output=anime.pt2 device=cuda",
        "checkpoint=runs/my_run format=look output=my_look",
    )

    format: FileFormat = option(
        help="pt2 for torch.export.load, onnx for ONNX runtimes (pip install 'animegen[export]'), or look"
    )
    output: str = option(help="<name>.pt2, <name>.onnx, or the folder of a look", path=True)
    device: Device = option(Device.cpu, "where a pt2 file runs; an ONNX file runs anywhere")
    opset: int = option(18, "of an ONNX file", minimum=18, maximum=23)
    tolerance: float = option(1.0, "largest accepted difference from the model, in levels of 255", above=0, maximum=255)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.format is not FileFormat.look and Path(self.output).suffix.lower() != f".{self.format.value}":
            raise AnimegenError(
                f"output='{self.output}' and format={self.format.value} contradict each other: use a name that ends in"
                f" .{self.format.value}."
            )


@dataclass
class ImportOptions(OverwriteOptions):
    """Convert the weights of another project to a checkpoint.

    Every tensor of the file must be used, and every tensor of the network filled. The checkpoint can be used with
    stylize, eval and export.
    """

    command: ClassVar[str] = "import"
    examples: ClassVar[Sequence[str]] = (
        "source=generator.pt output=theirs.ckpt",
        "source=generator.pt output=theirs.ckpt model.generator.upsample=bilinear",
    )

    source: str = option(help="a .pt or .pth file with the state dict of a generator; code in it is not run", path=True)
    output: str = option(help="<name>.ckpt", path=True)
    format: str = option("auto", "auto, or one of the formats below")
    model: str | None = option(
        None,
        "the model to fill, such as animegan/paired; null: that of the format. model.<key>=... changes its settings",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if Path(self.output).suffix != ".ckpt":
            raise AnimegenError(f"output='{self.output}' is no name of a checkpoint: use one that ends in .ckpt.")
