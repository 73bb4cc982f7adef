"""``animegen stylize``: photos and films to anime, with any model that has the Stylizer protocol."""

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
from animegen.config.compose import compose_config, plain
from animegen.config.schema import Device
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.runs import literal_paths, resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.inference.denoising import learnt_filter
from animegen.inference.display import Display
from animegen.inference.photos import stylize_photos
from animegen.inference.planning import is_sequence, plan
from animegen.inference.styles import encoded_style, style_files
from animegen.inference.stylist import SMALLEST_TILE, Stylist
from animegen.inference.summary import Summary
from animegen.inference.targets import Format, Job
from animegen.inference.videos import FilmSettings, identity, stylize_films
from animegen.media.video.encoding import CONTAINERS, Encoding, check_encoding
from animegen.tasks.protocols import Stylizer

HELP = """animegen stylize checkpoint=... input=... output=... [key=value ...]

  animegen stylize checkpoint=last input=photo.jpg output=anime.jpg
  animegen stylize checkpoint=runs/my_run input=photos/ output=anime/ precision=bf16
  animegen stylize checkpoint=last input=photos/ output=anime/ strength=0.7 max_side=1920 format=png
  animegen stylize checkpoint=last input=film.mp4 output=anime.mp4 crf=20 max_side=1280
  animegen stylize checkpoint=last input=frames/%05d.png fps=24000/1001 output=anime.mkv
  animegen stylize checkpoint=last input=film.mp4 output=anime.mp4 style=[a.jpg,b.jpg] style_weights=[0.7,0.3]

checkpoint   last, a run folder, or a .ckpt file           runs=runs is where last looks
input        a picture, a film, numbered frames, or a folder of pictures and films (recursive=true)
output       a picture, a film (.mp4 .mkv .mov .gif), or a folder that gets the names and sub-folders of the input;
             a film that goes to a folder, or to frames/%05d.png, becomes pictures; a folder that goes to a film, a film
device       auto, cpu, cuda, mps                          precision=fp32 or bf16
weights      ema (averaged, if the run kept any) or raw
strength     0 is the photo, 1 the drawing
style        a still in the look that is wanted, a folder of stills, or a list, for models that take any (temporal);
             style_weights: how much each counts
tile         auto, or the largest side that is computed in one piece; 0: everything in one piece
max_side     scales larger pictures down first
format       keep, png, jpg, webp, for pictures
overwrite    true replaces files that exist
on_error     skip or fail, for broken pictures and films
codec        libx264, libx265, libsvtav1, ...              crf, preset, pix_fmt as the codec has them
fps          of films that are numbered frames (24)        cuts=false: models with a memory keep it across cuts
prefilter    false: films are drawn as they are by models, too, whose training frames had their noise filtered off

Pictures keep orientation, EXIF, colour profile and transparency where the format can; films keep every time stamp,
sound and subtitles. A film that is stopped goes on after its last finished shot when the same command is given again.
Exit code: 0 all done, 1 something was skipped or is incomplete, 2 a mistake in the command."""


class OnError(Enum):
    """What a broken picture or film does."""

    skip = "skip"
    fail = "fail"


class Weights(Enum):
    """Which weights of a checkpoint to use."""

    ema = "ema"
    raw = "raw"


@dataclass
class StylizeSchema:
    """Keys of ``animegen stylize``."""

    checkpoint: str = "???"
    input: str = "???"
    output: str = "???"
    runs: str = "runs"
    device: Device = Device.auto
    precision: Any = None
    weights: Weights = Weights.ema
    strength: float = 1.0
    style: Any = None
    style_weights: list[float] | None = None
    tile: Any = "auto"
    max_side: int | None = None
    format: Format = Format.keep
    recursive: bool = True
    overwrite: bool = False
    on_error: OnError = OnError.skip
    codec: str = "libx264"
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str = "yuv420p"
    fps: Any = None
    cuts: bool = True
    prefilter: bool = True


def stylize(config: DictConfig) -> Summary:
    """Do what the configuration asks for.

    Raises:
        AnimegenError: for a mistake in the configuration, before anything is written.
    """
    tile = _tile(config.tile)
    if not 0 <= config.strength <= 1:
        raise AnimegenError(f"strength={config.strength} is not possible: it must be from 0 (photo) to 1 (drawing).")
    if config.max_side is not None and config.max_side < 1:
        raise AnimegenError(f"max_side={config.max_side} is not possible: it must be at least 1 pixel.")
    if config.style is None and config.style_weights is not None:
        raise AnimegenError("style_weights belongs to stills: set style= as well.")
    stills = [] if config.style is None else style_files(plain(config)["style"])
    made = plan(config.input, config.output, config.format, config.recursive, config.overwrite)
    encoding, fps = _encoding(config, made.films), _fps(config.fps, made.films)
    checkpoint = resolve_checkpoint(str(Path(config.checkpoint).expanduser()), config.runs)
    device = pick_device(config.device.value)
    model = load_model(checkpoint, device, config.weights.value)
    if not isinstance(model, Stylizer):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, does not stylise pictures: use another."
        )
    dtype = torch.bfloat16 if config.precision.trainer == "bf16-mixed" else None
    style = encoded_style(model, stills, plain(config)["style_weights"]) if stills else None
    chosen: dict[str, Any] = {name: str(config[name]) for name in ("weights", "strength", "tile", "style_weights")}
    chosen["style"] = [identity(still) for still in stills]
    prefilter, filtered = None, None
    if config.prefilter and made.films:
        prefilter, filtered = learnt_filter(getattr(model, "run_info", {}).get("config"), checkpoint)
    chosen["prefilter"] = filtered
    settings = FilmSettings(
        encoding=encoding,
        max_side=config.max_side,
        fps=fps,
        suffix=".png" if config.format is Format.keep else f".{config.format.value}",
        shots=_shots if config.cuts else None,
        prefilter=prefilter,
        identity={
            **chosen,
            "prefilter": filtered,
            "checkpoint": identity(checkpoint),
            "precision": str(dtype),
            "device": device.type,
        },
        overwrite=config.overwrite,
    )
    skip_broken = config.on_error is OnError.skip
    summary, began = Summary(), time.perf_counter()
    with made.held(), Display(len(made.photos) + len(made.films)) as display:
        if prefilter is not None:
            display.note("Noise is filtered off the frames, as it was while the model learnt (prefilter=false: not).")
        stylist = Stylist(model, device, tile, dtype, config.strength, display.note, style)
        stylize_photos(made.photos, stylist, summary, config.max_side, skip_broken, config.overwrite, display.progress)
        stylize_films(made.films, stylist.follow, settings, summary, display, skip_broken)
    summary.seconds = time.perf_counter() - began
    return summary


def _shots(frames: Any) -> list[tuple[int, int]]:
    # Imported where films are made: pictures need no detector.
    from animegen.media.video.shots import detect_shots

    return detect_shots(frames)


def _encoding(config: DictConfig, films: list[Job]) -> Encoding:
    """Return how to encode, after an encoder was tried on each kind of film that will be written."""
    encoding = Encoding(config.codec, config.crf, config.preset, config.pix_fmt)
    for suffix in {film.target.suffix.lower() for film in films} & set(CONTAINERS):
        for name in (f"x{suffix}", "x.mp4"):  # the film, and its segments
            check_encoding(encoding, Path(name))
    return encoding


def _fps(value: Any, films: list[Job]) -> Fraction | None:
    if value is None:
        return None
    try:
        fps = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= 1000:
        raise AnimegenError(f"fps={value} is not possible: give a number like 24, or a fraction like 24000/1001.")
    if not any(is_sequence(film.source) for film in films):
        raise AnimegenError(f"fps={value} is for films that are numbered frames; others have their own: leave it out.")
    return fps


def _tile(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or value >= SMALLEST_TILE):
        return value
    raise AnimegenError(
        f"tile={value} is not possible: use auto, 0 (no tiles), or a side of at least {SMALLEST_TILE} pixels."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen stylize`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return 0
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        ConfigStore.instance().store(group="schema", name="stylize", node=StylizeSchema, package="_global_")
        summary = stylize(compose_config("stylize", literal_paths(words, ("checkpoint", "input", "output", "runs"))))
        print(summary)
        return 1 if summary.skipped or summary.incomplete else 0

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
