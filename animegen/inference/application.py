"""Steps that the commands which apply a model share: loading it, choosing an encoding, checking where results go."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from animegen.config.common import Device, EncodingOptions, ImageFormat, Precision, Weights
from animegen.config.looks import looks
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.runs import resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.media.video.encoding import (
    CONTAINERS,
    Encoding,
    check_encoding,
    fits_alpha,
    lossless,
    usual_codec,
    usual_format,
)
from animegen.media.video.opening import images_keep
from animegen.media.video.stages import count_cores, network_threads
from animegen.nn.precision import computes_bf16


class Applies(Protocol):
    """The options of a command that applies a model."""

    checkpoint: str | None
    runs: str
    weights: Weights
    trust: bool
    device: Device
    threads: int | None
    precision: Precision


class Applied(NamedTuple):
    """A model that is ready for use."""

    model: Any
    checkpoint: Path
    device: torch.device
    dtype: torch.dtype | None


def load_applied(options: Applies, protocols: tuple[type, ...], ability: str) -> Applied:
    """Load the model that a command applies, on the device that it asks for.

    Args:
        options: options of the command.
        protocols: the supported protocols; the model has to implement one of them.
        ability: the same in words, such as ``stylize images``.

    Raises:
        AnimegenError: if there is no such checkpoint, device or ability, or the model needs more than frames.
    """
    checkpoint = resolve_checkpoint(str(options.checkpoint), options.runs)
    device = pick_device(options.device.value)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(checkpoint, device, options.weights.value, trust=options.trust)
    if not isinstance(model, protocols):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, does not {ability}: use another checkpoint."
        )
    if getattr(model, "exact_prior", False):
        raise AnimegenError(
            f"The model of '{checkpoint}' needs the exact motion of generated clips (prior=exact), which other frames"
            " do not come with: use another checkpoint."
        )
    return Applied(model, checkpoint, device, _autocast_type(options.precision, checkpoint, device))


def share_cores(threads: int | None, device: torch.device) -> None:
    """Let a model on the CPU leave cores to decoding and encoding, unless the user has chosen the number of threads.

    Args:
        threads: the user's choice.
        device: device of the model.
    """
    if threads is None and device.type == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), network_threads(count_cores())))


def _autocast_type(precision: Precision, checkpoint: Path, device: torch.device) -> torch.dtype | None:
    """Return the autocast type; ``None`` for full precision.

    The shipped looks were compared in both formats: the difference cannot be seen (over 50 dB), and bf16 takes half as
    long.
    """
    shipped = any(checkpoint == look.file for look in looks().values())
    if precision is Precision.bf16 or (precision is Precision.auto and shipped and computes_bf16(device)):
        return torch.bfloat16
    return None


def choose_encoding(
    options: EncodingOptions, target: Path, deep: bool = False, alpha: bool = False, images: str = ".png"
) -> Encoding:
    """Return how to encode a video, after the encoder was tried; for other outputs, that of their segments.

    Args:
        options: options of the command.
        target: output of the command.
        deep: whether the source has more than eight bits per colour.
        alpha: whether the source has transparency.
        images: suffix of the images in a folder.

    Raises:
        AnimegenError: names the option that is wrong.
    """
    suffix = target.suffix.lower()
    if suffix not in CONTAINERS:
        keeps_depth, keeps_alpha = images_keep(target, images)
        return lossless(deep and keeps_depth, alpha and keeps_alpha)
    # Its encoders have other options than the usual ones.
    codec = options.codec or usual_codec(suffix, alpha and options.crf is None and options.preset is None)
    pix_fmt = options.pix_fmt or usual_format(codec, deep, alpha and fits_alpha(codec, suffix))
    encoding = Encoding(codec, options.crf, options.preset, pix_fmt)
    check_encoding(encoding, Path(f"x{suffix}"))
    return encoding


def image_suffix(format_: ImageFormat) -> str:
    """Return the suffix of frames that are written to a folder."""
    return ".png" if format_ is ImageFormat.keep else f".{format_.value}"
