"""A clip from its first and its last frame, or through several key frames."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from animegen.errors import AnimegenError
from animegen.inference.application import choose_encoding, load_applied
from animegen.inference.generation import ClipDrawer
from animegen.inference.inbetween import ImageReader
from animegen.inference.options import GenerateOptions
from animegen.inference.planning import check_video_output
from animegen.media.images import read_image
from animegen.media.video.opening import create_video
from animegen.tasks.clip_adapter import InterpolatorAsClipGenerator
from animegen.tasks.protocols import ClipGenerator, Interpolator, Sampling

#: White pixels between clips that are shown side by side.
GAP = 2


@dataclass(frozen=True)
class Generated:
    """Summary of a generation.

    Attributes:
        text: a sentence about it.
        notes: messages for the user.
    """

    text: str
    notes: Sequence[str]

    def __str__(self) -> str:
        return self.text


def generate(options: GenerateOptions) -> Generated:
    """Generate the clips of the options.

    Raises:
        AnimegenError: for invalid options, before anything is written.
    """
    chosen = {field.name: getattr(options, field.name) for field in fields(Sampling)}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    files, target, fps = options.images(), Path(options.output), options.fps
    images = ImageReader(files, fps)
    check_video_output(files, target, options.overwrite)
    encoding = choose_encoding(options, target)
    applied = load_applied(options, (ClipGenerator, Interpolator), "draw frames between frames")
    model = _clip_generator(applied.model, {**chosen, "samples": options.samples})
    sampling = replace(getattr(model, "sampling", Sampling()), **chosen)
    draw = ClipDrawer(model, applied.device, applied.dtype, sampling, options.samples)
    began = time.perf_counter()
    clip = tiled(draw([read_image(file) for file in files], options.frames))
    info = replace(images.info, fps=fps, time_base=1 / fps, frames=len(clip), duration=len(clip) / fps)
    info = info.resized(clip.shape[3], clip.shape[2])
    with create_video(target, info, encoding, overwrite=options.overwrite) as writer:
        for number, frame in enumerate(clip):
            writer.write(frame, number / fps)
        writer.close(len(clip) / fps)
    seconds = time.perf_counter() - began
    several = f", {options.samples} samples" if options.samples > 1 else ""
    text = f"{len(clip)} frames, {len(clip) - len(files)} of them drawn{several}, {seconds:.1f} s: {target}"
    return Generated(text, [*draw.notes, *writer.notes])


def _clip_generator(model: Any, random: dict[str, Any]) -> Any:
    """Return a model that draws clips; one that draws single frames is deterministic, and takes no random settings."""
    if isinstance(model, ClipGenerator):
        return model
    for name, value in random.items():
        if (name, value) != ("samples", 1):
            raise AnimegenError(f"{type(model).__name__} is deterministic; {name}= has no effect: leave it out.")
    return InterpolatorAsClipGenerator(model)


def tiled(clips: Tensor) -> Tensor:
    """Return clips, uint8 (N,T,3,H,W), side by side as one, (T,3,h,w), in reading order with white between."""
    if len(clips) == 1:
        return clips[0]
    columns = math.ceil(math.sqrt(len(clips)))
    missing = -len(clips) % columns
    white = torch.full_like(clips[:1], 255).expand(missing, -1, -1, -1, -1)
    framed = F.pad(torch.cat([clips, white]), (GAP, 0, GAP, 0), value=255)
    rows = framed.unflatten(0, (-1, columns)).permute(2, 3, 0, 4, 1, 5)
    return F.pad(rows.flatten(4, 5).flatten(2, 3), (0, GAP, 0, GAP), value=255)
