"""Keys that several commands share: declared once, so that they mean the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from animegen.config.looks import look_for
from animegen.config.options import Options, option
from animegen.errors import AnimegenError

#: As in NumPy and Lightning.
LARGEST_SEED = 2**32 - 1

MODEL = "Model and machine"
VIDEO = "Encoding of videos"


class Device(Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(Enum):
    """Number format of computations."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Weights(Enum):
    """Which weights of a checkpoint to use."""

    ema = "ema"
    raw = "raw"


class ImageFormat(Enum):
    """Format in which images are written."""

    keep = "keep"
    png = "png"
    jpg = "jpg"
    webp = "webp"


@dataclass
class RunsOptions(Options):
    """The folder of all runs."""

    runs: str = option("runs", "folder of all runs, in which 'last' is looked up", path=True, section=MODEL)


@dataclass
class WeightsOptions(RunsOptions):
    """Which weights of a trained model to use."""

    weights: Weights = option(Weights.ema, "averaged weights, if the run kept any, or the raw ones", section=MODEL)
    trust: bool = option(
        False, "build classes that are not animegen's, which may run any code; see docs/security.md", section=MODEL
    )


@dataclass
class CheckpointOptions(WeightsOptions):
    """Which trained model to use."""

    checkpoint: str = option(help="last, a run folder, a .ckpt file, or the name of a shipped look", path=True)


@dataclass
class LookOptions(WeightsOptions):
    """Which trained model to use: by default the shipped look of the command."""

    checkpoint: str | None = option(
        None, "last, a run folder, or a .ckpt file; null: a shipped look", path=True, section=MODEL
    )
    look: str | None = option(
        None, "weights that ship with animegen, see animegen list looks; null: the usual ones", section=MODEL
    )
    #: Whether nothing names the model, so that the checkpoint is that of the usual look.
    usual: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint is not None and self.look is not None:
            raise AnimegenError("checkpoint= and look= both name a model: leave one of them out.")
        if self.checkpoint is None and self.needs_model:
            look = look_for(self.command, self.look)
            if look is None:
                raise AnimegenError(
                    f"Missing on the command line: checkpoint=... (animegen {self.command} --help explains the keys)."
                )
            self.checkpoint, self.usual = str(look.file), self.look is None

    @property
    def needs_model(self) -> bool:
        """Whether the command applies a model with these options."""
        return True


@dataclass
class ComputeOptions(Options):
    """Where to compute."""

    device: Device = option(Device.auto, "where to compute", section=MODEL)
    threads: int | None = option(
        None, "CPU threads; null leaves the choice to PyTorch", minimum=1, maximum=1024, section=MODEL
    )


@dataclass
class PrecisionOptions(Options):
    """In which number format to compute."""

    precision: Precision = option(
        Precision.auto,
        "number format; bf16 is faster on recent machines; auto: bf16 for shipped looks where the processor computes"
        " with it, else fp32",
        section=MODEL,
    )


@dataclass
class OverwriteOptions(Options):
    """Whether results may replace existing files."""

    overwrite: bool = option(False, "replace results that exist")


@dataclass
class EncodingOptions(Options):
    """How videos are encoded."""

    codec: str | None = option(
        None,
        "an encoder of FFmpeg: libx264, libx265, libsvtav1 ...; null: libx264, or libvpx-vp9 for .webm",
        section=VIDEO,
    )
    crf: float | None = option(
        None, "quality, lower is better; null: hardly any loss", minimum=0, maximum=63, section=VIDEO
    )
    preset: str | None = option(None, "how long the codec looks for a smaller file; null: its usual one", section=VIDEO)
    pix_fmt: str | None = option(
        None,
        "pixel format, such as yuv444p for full colour resolution; null: yuv420p, which plays everywhere",
        section=VIDEO,
    )
