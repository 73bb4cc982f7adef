"""``animegen generate``: a clip from its first and its last frame, or through several key frames."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from torch import Tensor
from torchvision.utils import make_grid

from animegen.cli.main import run
from animegen.config.common import Device, Weights
from animegen.config.compose import compose_config
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.runs import quoted, resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import user_path
from animegen.inference.generation import ClipDrawer
from animegen.inference.inbetween import Pictures
from animegen.inference.planning import check_video_output
from animegen.media.images import read_image
from animegen.media.video.encoding import CONTAINERS, Encoding, check_encoding
from animegen.media.video.opening import create_video
from animegen.tasks.clip_adapter import EvenTimes
from animegen.tasks.protocols import ClipGenerator, Interpolator, Sampling

HELP = """animegen generate checkpoint=... first=... last=... output=... [key=value ...]

  animegen generate checkpoint=last first=a.png last=b.png output=clip.mp4
  animegen generate checkpoint=last first=a.png last=b.png frames=24 output=clip.gif samples=4 temperature=0.8
  animegen generate checkpoint=runs/my_run keys=[a.png,b.png,c.png] frames=9 output=frames/

checkpoint   last, a run folder, or a .ckpt file           runs=runs is where last looks
first, last  two pictures of one size
keys         or a chain of pictures: [a.png,b.png,c.png]
output       a film (.mp4 .mkv .mov .gif), or a folder for pictures
frames       from one picture to the next, both included (16); more than the model knows are drawn in halves
fps          of the film (24)
samples      so many clips side by side (1)
temperature, top_k, top_p, greedy, guidance, steps         how codes are chosen; default: as the model was set
seed         0; another one gives another clip
device       auto, cpu, cuda, mps                          precision=fp32 or bf16
weights      ema (averaged, if the run kept any) or raw
overwrite    true replaces what exists
codec        libx264, libx265, libsvtav1, ...              crf, preset, pix_fmt as the codec has them

The given pictures stand in the clip as they are. Models that draw frames at any time (interpolation) serve as well."""

#: Keys that mean something only where there is chance.
_CHANCE = tuple(field.name for field in fields(Sampling))


@dataclass
class GenerateSchema:
    """Keys of ``animegen generate``."""

    checkpoint: str = "???"
    output: str = "???"
    first: str | None = None
    last: str | None = None
    keys: Any = None
    frames: int = 16
    fps: float = 24.0
    samples: int = 1
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    steps: int | None = None
    guidance: float | None = None
    greedy: bool | None = None
    seed: int | None = None
    runs: str = "runs"
    device: Device = Device.auto
    precision: Any = None
    weights: Weights = Weights.ema
    overwrite: bool = False
    codec: str = "libx264"
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str = "yuv420p"


def generate(config: DictConfig) -> str:
    """Do what the configuration asks for; return a sentence about it.

    Raises:
        AnimegenError: for a mistake in the configuration, before anything is written.
    """
    if config.frames < 3:
        raise AnimegenError(f"frames={config.frames} leaves nothing to draw between two pictures: use 3 or more.")
    if config.samples < 1:
        raise AnimegenError(f"samples={config.samples} draws no clip: use 1 or more.")
    if not 0 < config.fps <= 1000:
        raise AnimegenError(f"fps={config.fps} is not possible: give a number like 24.")
    given = {name: config[name] for name in _CHANCE if config[name] is not None}
    Sampling(**given)
    files = _pictures(config)
    fps = Fraction(str(config.fps))
    pictures = Pictures(files, fps)
    target = user_path("output", config.output)
    check_video_output(files, target, config.overwrite)
    encoding = Encoding(config.codec, config.crf, config.preset, config.pix_fmt)
    if target.suffix.lower() in CONTAINERS:
        check_encoding(encoding, target)
    checkpoint = resolve_checkpoint(str(Path(config.checkpoint).expanduser()), config.runs)
    device = pick_device(config.device.value)
    model: Any = load_model(checkpoint, device, config.weights.value)
    if not isinstance(model, ClipGenerator):
        if not isinstance(model, Interpolator):
            raise AnimegenError(
                f"The model of '{checkpoint}', {type(model).__name__}, draws no frames between frames: use another."
            )
        if given or config.samples > 1:
            name = next(iter(given), "samples")
            raise AnimegenError(
                f"{type(model).__name__} draws without chance, so {name}={config[name]} means nothing: leave it out."
            )
        model = EvenTimes(model)
    sampling = replace(getattr(model, "sampling", Sampling()), **given)
    dtype = torch.bfloat16 if config.precision.trainer == "bf16-mixed" else None
    draw = ClipDrawer(model, device, dtype, sampling, config.samples)
    began = time.perf_counter()
    clips = draw([read_image(file) for file in files], config.frames)
    film = tiled(clips)
    info = replace(pictures.info, fps=fps, time_base=1 / fps, frames=len(film), duration=len(film) / fps)
    info = info.resized(film.shape[3], film.shape[2])
    with create_video(target, info, encoding, overwrite=config.overwrite) as writer:
        for number, frame in enumerate(film):
            writer.write(frame, number / fps)
        writer.close(len(film) / fps)
    for note in (*draw.notes, *writer.notes):
        print(f"note: {note}", file=sys.stderr)
    drawn = len(film) - len(files)
    seconds = time.perf_counter() - began
    several = f", {config.samples} samples" if config.samples > 1 else ""
    return f"{len(film)} frames, {drawn} of them drawn{several}, {seconds:.1f} s: {target}"


def tiled(clips: Tensor) -> Tensor:
    """Return clips, uint8 (N,T,3,H,W), side by side as one, (T,3,h,w); in reading order, 2 white pixels between."""
    if len(clips) == 1:
        return clips[0]
    columns = math.ceil(math.sqrt(len(clips)))
    return torch.stack([make_grid(frames, nrow=columns, padding=2, pad_value=255) for frames in clips.unbind(1)])


def _pictures(config: DictConfig) -> list[Path]:
    if config["keys"] is not None:
        if config.first is not None or config.last is not None:
            raise AnimegenError("keys=[...] names all key frames: leave first= and last= out.")
        names = [config["keys"]] if isinstance(config["keys"], str) else list(config["keys"])
        keys = ["keys"] * len(names)
    else:
        missing = [name for name in ("first", "last") if config[name] is None]
        if missing:
            raise AnimegenError(f"{missing[0]}= is missing: name two pictures, first=a.png last=b.png, or keys=[...].")
        names, keys = [config.first, config.last], ["first", "last"]
    if len(names) < 2:
        raise AnimegenError("keys=[...] needs two pictures at least: keys=[a.png,b.png].")
    return [user_path(key, str(name)) for key, name in zip(keys, names, strict=True)]


def _quoted(word: str) -> str:
    """Quote paths for Hydra, to which brackets, commas and equals signs in file names mean something."""
    key, equals, value = word.partition("=")
    if key not in ("checkpoint", "first", "last", "keys", "output", "runs") or not value or value[0] in "'\"":
        return word
    if key == "keys" and value.startswith("[") and value.endswith("]"):
        return f"{key}=[{','.join(quoted(part.strip()) for part in value[1:-1].split(','))}]"
    return f"{key}{equals}{quoted(value)}"


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen generate`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return 0
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        ConfigStore.instance().store(group="schema", name="generate", node=GenerateSchema, package="_global_")
        print(generate(compose_config("generate", [_quoted(word) for word in words])))
        return 0

    return run(body)
