"""``animegen interpolate``: the frames between two pictures, or between the frames of a film."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from animegen.cli.main import run
from animegen.config.common import Device, Weights
from animegen.config.compose import compose_config
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.runs import quoted, resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import regular_file, user_path
from animegen.inference.display import Display
from animegen.inference.inbetween import SMALLEST_TILE, FilmPlan, Inbetweener, Pictures, interpolate_film
from animegen.inference.planning import check_video_output
from animegen.inference.selfcheck import selfcheck
from animegen.inference.targets import Format
from animegen.inference.timegrid import Grid
from animegen.inference.videos import identity
from animegen.media.images import EXTENSIONS
from animegen.media.video.deep import is_deep
from animegen.media.video.encoding import CONTAINERS, Encoding, check_encoding, usual_format
from animegen.media.video.frames import FrameReader
from animegen.media.video.opening import open_video
from animegen.media.video.reader import VideoReader
from animegen.media.video.remux import check_streams
from animegen.media.video.sequences import frames_of_gif, is_pattern
from animegen.media.video.slowed import Slowed
from animegen.tasks.protocols import Interpolator

HELP = """animegen interpolate checkpoint=... input=... output=... [key=value ...]

  animegen interpolate checkpoint=last input=[a.png,b.png] output=between/ factor=4
  animegen interpolate checkpoint=runs/my_run input=frames/ output=more_frames/
  animegen interpolate checkpoint=last input=film.mp4 output=smooth.mp4 fps=60
  animegen interpolate checkpoint=last input=film.mp4 output=smooth.mp4 factor=2 holds=smooth
  animegen interpolate checkpoint=last input=film.mp4 output=slow.mp4 slowmo=4
  animegen interpolate checkpoint=last input=film.mp4 selfcheck=true         how well does it do on this film?

checkpoint   last, a run folder, or a .ckpt file           runs=runs is where last looks
input        two or more pictures in brackets, a folder of frames, numbered frames (frames/%05d.png), or a film
output       a film (.mp4 .mkv .mov .gif), or a folder for pictures
factor       frames per frame (2), also 2.5; a variable rate stays one
fps          or frames per second: 60, 60000/1001
slowmo       4: the film lasts four times as long, at its own rate unless factor or fps say otherwise; without sound
holds        keep: drawings held on twos and threes stay, only what moved moves; smooth: motion takes the whole hold;
             auto: smooth in shots that are drawn on twos, threes or fours throughout, else keep
cuts         true: cuts and flashes are found, and nothing is drawn across them
confidence   0 to 1 (0.5 is a good start): pairs of which less matches are not drawn between, the first is held
selfcheck    true: every other drawing is left out, drawn, and compared with the true one; writes nothing
samples      how many drawings that compares at most (24)
tile         auto, or the largest side that is computed in one piece; 0: everything in one piece
input_fps    rate of pictures (24)
device       auto, cpu, cuda, mps                          precision=fp32 or bf16
weights      ema (averaged, if the run kept any) or raw
format       keep, png, jpg, webp, for pictures
overwrite    true replaces what exists
codec        libx264, libx265, libsvtav1, ...              crf, preset, pix_fmt as the codec has them

Films keep duration, sound and subtitles; every time stamp is exact. The frames of the source stay as they are. A film
with ten bits per colour keeps them. One that is stopped goes on after its last finished shot when the same command is
given again. Of a damaged film what it still shows is drawn, what is missing is told, and the exit code is 1."""


class Holds(Enum):
    """What becomes of drawings that are held for several frames."""

    keep = "keep"
    smooth = "smooth"
    auto = "auto"


@dataclass
class InterpolateSchema:
    """Keys of ``animegen interpolate``."""

    checkpoint: str = "???"
    input: Any = "???"
    output: str | None = None
    runs: str = "runs"
    device: Device = Device.auto
    precision: Any = None
    weights: Weights = Weights.ema
    factor: Any = None
    fps: Any = None
    slowmo: Any = None
    input_fps: Any = None
    holds: Holds = Holds.keep
    cuts: bool = True
    confidence: float = 0.0
    tile: Any = "auto"
    selfcheck: bool = False
    samples: int = 24
    format: Format = Format.keep
    overwrite: bool = False
    codec: str = "libx264"
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None


def interpolate(config: DictConfig) -> int:
    """Do what the configuration asks for, and print a sentence about it; return 1 if the film is damaged, else 0.

    Raises:
        AnimegenError: for a mistake in the configuration, before anything is written.
    """
    fps, slowmo, factor = (_rate(key, config[key]) for key in ("fps", "slowmo", "factor"))
    if slowmo is not None and slowmo <= 1:
        raise AnimegenError(f"slowmo={config.slowmo} makes nothing slower: use a number above 1, like 4.")
    if factor is None and fps is None:
        factor = slowmo or Fraction(2)
    grid = Grid(factor, fps)
    tile = _tile(config.tile)
    if not 0 <= config.confidence <= 1:
        raise AnimegenError(f"confidence={config.confidence} is a share of the picture: use a number from 0 to 1.")
    if config.selfcheck == bool(config.output):
        told = "writes nothing: leave output= out" if config.selfcheck else "needs output=<film or folder>"
        raise AnimegenError(f"animegen interpolate{' selfcheck=true' if config.selfcheck else ''} {told}.")
    reader = _reader(config.input, _rate("input_fps", config.input_fps))
    film = isinstance(reader, VideoReader)
    if slowmo is not None:
        if not film:
            raise AnimegenError("slowmo= is for films: pictures are as slow as input_fps= says.")
        reader = Slowed(reader, slowmo)
    deep = is_deep(reader.info.pix_fmt)
    pix_fmt = config.pix_fmt or usual_format(config.codec, deep)
    encoding = Encoding(config.codec, config.crf, config.preset, pix_fmt)
    target = Path() if config.selfcheck else user_path("output", config.output)
    if not config.selfcheck:
        check_video_output([reader.path, *getattr(reader, "files", [])], target, config.overwrite)
        if target.suffix.lower() in CONTAINERS:
            for name in (target, Path("x.mp4")):  # the film, and its segments
                check_encoding(encoding, name)
            if film and slowmo is None:
                check_streams(reader.path, target)
    checkpoint = resolve_checkpoint(str(Path(config.checkpoint).expanduser()), config.runs)
    device = pick_device(config.device.value)
    model = load_model(checkpoint, device, config.weights.value)
    if not isinstance(model, Interpolator):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, draws no frames between frames: use another."
        )
    if config.selfcheck:
        print(selfcheck(reader, model, device, config.samples, config.cuts))
        return 0
    dtype = torch.bfloat16 if config.precision.trainer == "bf16-mixed" else None
    draw = Inbetweener(model, device, dtype, tile, config.confidence)
    suffix = ".png" if config.format is Format.keep else f".{config.format.value}"
    chosen = {name: str(config[name]) for name in ("weights", "confidence", "tile")}
    known = {**chosen, "checkpoint": identity(checkpoint), "precision": str(dtype), "device": device.type}
    plan = FilmPlan(grid, config.holds.value, config.cuts, encoding, suffix, known, config.overwrite)
    began, frames = time.perf_counter(), 0
    expected = reader.info.expected_frames
    if expected is not None:
        rate = grid.factor if grid.fps is None else grid.fps / reader.info.fps
        expected = round(expected * (rate or 1))
    with Display(1, "interpolate") as display:
        for remark in reader.info.remarks:
            display.note(remark)
        if slowmo is not None:
            display.note("Sound and subtitles do not fit slow motion and are left out.")
        if deep and config.pix_fmt is None and target.suffix.lower() in CONTAINERS and not is_deep(pix_fmt):
            display.note(f"codec={config.codec} has no format with ten bits: of {reader.info.pix_fmt} eight are kept.")
        shown = display.film(reader.path.name, 0, expected)
        try:
            for _ in interpolate_film(reader, target, draw, plan, display.note):
                frames += 1
                shown.frame()
        finally:
            shown.end()
        for problem in reader.problems:
            display.note(problem)
    seconds = time.perf_counter() - began
    held = f", {draw.held} held since their pairs match too little" if draw.held else ""
    print(f"{frames} frames, {draw.drawn} of them drawn{held}, {seconds:.1f} s: {target}")
    return 1 if reader.problems else 0


def _reader(given: Any, fps: Fraction | None) -> FrameReader:
    if not isinstance(given, str):
        files = [user_path("input", str(file)) for file in given]
        if len(files) < 2:
            raise AnimegenError("input=[...] needs two pictures at least: input=[a.png,b.png].")
        return Pictures(files, fps)
    source = user_path("input", given)
    pictures = is_pattern(source) or source.is_dir()
    if not pictures:
        regular_file(source)
        if source.suffix.lower() in EXTENSIONS and frames_of_gif(source) < 2:
            raise AnimegenError(f"input='{source}' is one picture: name two, as input=[{source.name},b.png].")
        if fps is not None:
            raise AnimegenError("input_fps= is for films that are pictures; others have their own rate: leave it out.")
    return open_video(source, fps)


def _tile(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or value >= SMALLEST_TILE):
        return value
    raise AnimegenError(
        f"tile={value} is not possible: use auto, 0 (no tiles), or a side of at least {SMALLEST_TILE} pixels."
    )


def _rate(key: str, value: Any) -> Fraction | None:
    if value is None:
        return None
    try:
        rate = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 0 < rate <= 1000:
        raise AnimegenError(f"{key}={value} is not possible: give a number like 24, or a fraction like 24000/1001.")
    return rate


def _quoted(word: str) -> str:
    """Quote paths for Hydra, to which brackets, commas and equals signs in file names mean something."""
    key, equals, value = word.partition("=")
    if key not in ("checkpoint", "input", "output", "runs") or not value or value[0] in "'\"":
        return word
    if key == "input" and value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(quoted(part.strip()) for part in value[1:-1].split(','))}]"
    return f"{key}{equals}{quoted(value)}"


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen interpolate`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return 0
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        ConfigStore.instance().store(group="schema", name="interpolate", node=InterpolateSchema, package="_global_")
        return interpolate(compose_config("interpolate", [_quoted(word) for word in words]))

    return run(body)
