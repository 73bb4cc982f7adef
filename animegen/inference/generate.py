"""A clip from its first and its last frame, or through several key frames."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
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
from animegen.media.images import read_image, scaled, to_float, to_uint8
from animegen.media.video.encoding import Encoding
from animegen.media.video.frames import VideoInfo
from animegen.media.video.opening import WRITTEN_SUFFIXES, create_video
from animegen.media.video.sequences import is_pattern
from animegen.tasks.clip_adapter import InterpolatorAsClipGenerator
from animegen.tasks.protocols import ClipGenerator, Interpolator, Sampling

#: White pixels between clips that are shown side by side.
GAP = 2
#: Longest side of the clip that shows all samples.
GRID_SIDE = 640
#: Values of a clip that are compared with those of others at least.
MEASURED = 200_000
#: Mean difference of samples, in levels of 255, below which they look alike: that of a fine grain.
VISIBLE = 2.0


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

    Several samples are separate clips, with a number in their names, and a small one of all of them side by side.

    Raises:
        AnimegenError: for invalid options, before anything is written.
    """
    chosen = {field.name: getattr(options, field.name) for field in fields(Sampling)}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    files, target = options.images(), Path(options.output)
    images = ImageReader(files, options.fps)
    together = place(target, None)
    targets = [target] if options.samples == 1 else [place(target, n + 1) for n in range(options.samples)]
    for each in targets if options.samples == 1 else [*targets, together]:
        check_video_output(files, each, options.overwrite)
    encoding = choose_encoding(options, target)
    applied = load_applied(options, (ClipGenerator, Interpolator), "draw frames between frames")
    model = _clip_generator(applied.model, {**chosen, "samples": options.samples})
    sampling = replace(getattr(model, "sampling", Sampling()), **chosen)
    draw = ClipDrawer(model, applied.device, applied.dtype, sampling, options.samples)
    began = time.perf_counter()
    clips = draw([read_image(file) for file in files], options.frames)
    notes = [*images.info.remarks, *draw.notes]
    for each, clip in zip(targets, clips, strict=True):
        notes += _write(each, clip, images.info, options, encoding)
    seconds = time.perf_counter() - began
    text = f"{clips.shape[1]} frames, {clips.shape[1] - len(files)} of them drawn, {seconds:.1f} s: "
    if options.samples == 1:
        return Generated(f"{text}{target}", list(dict.fromkeys(notes)))
    notes += _write(together, tiled(small(clips)), images.info, options, encoding)
    text = f"{options.samples} clips of {text}{targets[0]} to {targets[-1]}; side by side: {together}"
    return Generated(f"{text}\n{difference(clips, options.frames - 1)}", list(dict.fromkeys(notes)))


def place(target: Path, number: int | None) -> Path:
    """Return where one of several clips goes: the sample of this number, or for ``None`` all of them side by side.

    ``clip.gif`` is the name of the latter, and ``clip_1.gif`` of the first sample. Images go to folders ``1``, ``2``,
    ... and ``grid``.
    """
    if is_pattern(target):
        return target.parent / str(number or "grid") / target.name
    if target.suffix.lower() not in WRITTEN_SUFFIXES or target.is_dir():
        return target / str(number or "grid")
    return target if number is None else target.with_name(f"{target.stem}_{number}{target.suffix}")


def _write(target: Path, clip: Tensor, like: VideoInfo, options: GenerateOptions, encoding: Encoding) -> list[str]:
    """Write a clip, uint8 (T,3,H,W); return the notes of the writer."""
    count, fps = len(clip), options.fps
    info = replace(like, fps=fps, time_base=1 / fps, frames=count, duration=count / fps)
    info = info.resized(clip.shape[3], clip.shape[2])
    with create_video(target, info, encoding, overwrite=options.overwrite) as writer:
        for number, frame in enumerate(clip):
            writer.write(frame, number / fps)
        writer.close(count / fps)
    return list(writer.notes)


def difference(clips: Tensor, gap: int) -> str:
    """Return a sentence about how much samples differ from each other.

    Args:
        clips: uint8 (N,T,3,H,W), two or more of the same key frames.
        gap: number of frames from one key frame to the next.
    """
    drawn = [t for t in range(clips.shape[1]) if t % gap]
    step = max(1, math.isqrt(clips[0].numel() // MEASURED))
    points = clips[:, drawn][..., ::step, ::step].flatten(1).int()
    pairs = {(a, b): (points[a] - points[b]).abs().float().mean().item() for a, b in combinations(range(len(clips)), 2)}
    mean, most = sum(pairs.values()) / len(pairs), max(pairs, key=lambda pair: pairs[pair])
    ends = (clips[0, 0].int() - clips[0, gap].int()).abs().float().mean().item()
    if mean == 0:
        return "The samples are equal: raise temperature= or top_k=, and leave greedy= out."
    text = f"The samples differ by {mean:.1f} levels of 255 on average, {most[0] + 1} and {most[1] + 1} the most"
    text += f" ({pairs[most]:.1f}); the first two images differ by {ends:.1f}."
    return f"{text} That is hardly visible: raise temperature= or top_k=." if mean < VISIBLE else text


def small(clips: Tensor) -> Tensor:
    """Return clips, uint8 (N,T,3,H,W), scaled down so that all side by side fit into `GRID_SIDE` pixels."""
    columns = math.ceil(math.sqrt(len(clips)))
    rows = math.ceil(len(clips) / columns)
    height, width = clips.shape[-2:]
    scale = min(1.0, GRID_SIDE / (columns * width), GRID_SIDE / (rows * height))
    size = (max(1, int(height * scale)), max(1, int(width * scale)))
    if size == (height, width):
        return clips
    frames = [to_uint8(scaled(to_float(frame[None]), size)[0]) for frame in clips.flatten(0, 1)]
    return torch.stack(frames).unflatten(0, clips.shape[:2])


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
