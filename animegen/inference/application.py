"""Steps that the commands which apply a model share: loading it, choosing an encoding, checking where results go."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from animegen.config.common import Device, EncodingOptions, Precision, Weights
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.runs import resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.media.video.encoding import CONTAINERS, Encoding, check_encoding, usual_codec, usual_format


class Applies(Protocol):
    """The options of a command that applies a model."""

    checkpoint: str
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
        AnimegenError: if there is no such checkpoint, device or ability.
    """
    checkpoint = resolve_checkpoint(options.checkpoint, options.runs)
    device = pick_device(options.device.value)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load_model(checkpoint, device, options.weights.value, trust=options.trust)
    if not isinstance(model, protocols):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, does not {ability}: use another checkpoint."
        )
    dtype = torch.bfloat16 if options.precision is Precision.bf16 else None
    return Applied(model, checkpoint, device, dtype)


def choose_encoding(options: EncodingOptions, targets: Iterable[Path], deep: bool = False) -> Encoding:
    """Return how to encode videos, after the encoder was tried on each kind of file that will be written.

    Args:
        options: options of the command.
        targets: output files of the command; only videos matter.
        deep: whether the source has more than eight bits per colour.

    Raises:
        AnimegenError: names the option that is wrong.
    """
    suffixes = {target.suffix.lower() for target in targets} & set(CONTAINERS)
    codec = options.codec or usual_codec(min(suffixes, default=""))
    pix_fmt = options.pix_fmt or usual_format(codec, deep)
    encoding = Encoding(codec, options.crf, options.preset, pix_fmt)
    for suffix in suffixes:
        check_encoding(encoding, Path(f"x{suffix}"))
    return encoding
