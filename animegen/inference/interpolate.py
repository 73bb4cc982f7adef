"""The frames between images, or between the frames of a video, with any model that has the Interpolator protocol."""

from __future__ import annotations

import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch

from animegen.engine.checkpoint import pick_device
from animegen.errors import AnimegenError
from animegen.inference.application import Applied, choose_encoding, image_suffix, load_applied, share_cores
from animegen.inference.classical import ClassicalInterpolator
from animegen.inference.display import Display
from animegen.inference.inbetween import ImageReader, VideoPlan, interpolate_video
from animegen.inference.inbetweener import Inbetweener
from animegen.inference.options import Deinterlace, InterpolateOptions, Method
from animegen.inference.planning import check_video_output
from animegen.inference.timegrid import Grid
from animegen.inference.videos import Part, copies_for, identity, opened, remarks
from animegen.media.kinds import Kind, kind_of
from animegen.media.video.deep import is_deep
from animegen.media.video.excerpt import Excerpt
from animegen.media.video.frames import FrameReader
from animegen.media.video.opening import WRITTEN_SUFFIXES
from animegen.media.video.reader import VideoReader
from animegen.media.video.sequences import is_pattern
from animegen.media.video.slowed import Slowed
from animegen.tasks.protocols import Interpolator


@dataclass(frozen=True)
class Interpolated:
    """Summary of an interpolation.

    Attributes:
        text: a sentence about it.
        problems: damage in the source.
    """

    text: str
    problems: list[str]

    def __str__(self) -> str:
        return self.text


def interpolate(options: InterpolateOptions) -> Interpolated:
    """Interpolate the input of the options.

    Raises:
        AnimegenError: for invalid options, before anything is written.
    """
    target, suffix = Path(options.output or ""), image_suffix(options.format)
    reader = _open(options, choose_encoding(options, target, alpha=True, images=suffix).alpha)
    if options.selfcheck:
        from animegen.inference.selfcheck import selfcheck  # imports benchmarks

        applied = _applied(options)
        neighbours = options.neighbours and options.method is Method.dis
        text = selfcheck(reader, applied.model, applied.device, options.samples, options.cuts, neighbours)
        return Interpolated(text, [])
    check_video_output([reader.path, *getattr(reader, "files", [])], target, options.overwrite)
    encoding = choose_encoding(options, target, is_deep(reader.info.pix_fmt), reader.info.alpha, suffix)
    grid = _grid(options)
    rate = grid.fps or reader.info.fps * (grid.factor or 1)
    copies = copies_for(reader, target, encoding, rate)
    applied = _applied(options)
    share_cores(options.threads, applied.device)
    tile = None if options.tile == "auto" else options.tile
    draw = Inbetweener(applied.model, applied.device, applied.dtype, tile, options.confidence)
    plan = VideoPlan(
        grid=grid,
        holds=options.holds.value,
        cuts=options.cuts,
        encoding=encoding,
        suffix=suffix,
        identity=_identity(options, applied),
        overwrite=options.overwrite,
        copies=copies,
        compare=options.compare is not None,
        neighbours=options.neighbours and options.method is Method.dis,
    )
    began = time.perf_counter()
    notes = remarks(reader, encoding)
    if options.method is Method.dis:
        notes.append("Frames are drawn by warping along optical flow (DIS). checkpoint= applies a trained model.")
    if options.slowmo is not None:
        notes.append("Sound and subtitles do not fit slow motion and are left out.")
    frames = _write(reader, target, draw, plan, notes)
    seconds = time.perf_counter() - began
    held = f", {draw.held} held since their pairs match too little" if draw.held else ""
    return Interpolated(
        f"{frames} frames, {draw.drawn} of them drawn{held}, {seconds:.1f} s: {target}", list(reader.problems)
    )


def _applied(options: InterpolateOptions) -> Applied:
    """Return the model, or the method that needs none."""
    if options.needs_model:
        return load_applied(options, (Interpolator,), "draw frames between frames")
    if options.threads:
        torch.set_num_threads(options.threads)
    model = ClassicalInterpolator(flow=options.method is Method.dis, estimates=options.estimates)
    return Applied(model, Path(), pick_device(options.device.value), None)


def _grid(options: InterpolateOptions) -> Grid:
    factor = options.factor
    if factor is None and options.fps is None:
        factor = options.slowmo or Fraction(2)
    return Grid(factor, options.fps)


def _open(options: InterpolateOptions, straight: bool) -> FrameReader:
    """Return the frames to interpolate; ``straight``: with their transparency."""
    part = Part(options.start, options.end, options.deinterlace is Deinterlace.auto)
    reader = _open_source([Path(name) for name in options.input], options.input_fps, part, straight)
    if options.slowmo is None:
        return reader
    if not isinstance(reader.reader if isinstance(reader, Excerpt) else reader, VideoReader):
        raise AnimegenError("slowmo= is for videos; the rate of images is input_fps=.")
    return Slowed(reader, options.slowmo)


def _open_source(files: list[Path], fps: Fraction | None, part: Part, straight: bool) -> FrameReader:
    if len(files) > 1:
        return ImageReader(files, fps, straight)
    source = files[0]
    if not is_pattern(source) and not source.is_dir():
        if kind_of(source) is Kind.image:
            raise AnimegenError(f"input='{source}' is one image: name two, as input=[{source.name},b.png].")
        if fps is not None:
            raise AnimegenError("input_fps= is for images; videos have a rate of their own: leave it out.")
    return opened(source, fps, part, straight)


def _identity(options: InterpolateOptions, applied: Applied) -> dict[str, object]:
    """Return the settings on which frames depend, compared when an interrupted video is continued."""
    return {
        "weights": options.weights.value,
        "confidence": str(options.confidence),
        "tile": str(options.tile),
        "part": [str(options.start), str(options.end), options.deinterlace.value],
        "checkpoint": identity(applied.checkpoint) if options.needs_model else options.method.value,
        "estimates": options.estimates if options.method is Method.dis else None,
        "precision": str(applied.dtype),
        "device": applied.device.type,
    }


def _write(reader: FrameReader, target: Path, draw: Inbetweener, plan: VideoPlan, notes: list[str]) -> int:
    """Write the frames; return their number."""
    frames, expected = 0, reader.info.expected_frames
    if expected is not None:
        expected = plan.grid.count(expected, reader.info.fps, target.suffix.lower() in WRITTEN_SUFFIXES)
    with Display(1, "interpolate") as display:
        for note in notes:
            display.note(note)
        shown = display.video(reader.path.name, 0, expected)
        try:
            for _ in interpolate_video(reader, target, draw, plan, display.note):
                frames += 1
                shown.frame()
        finally:
            shown.end()
        for problem in reader.problems:
            display.note(problem)
    return frames
