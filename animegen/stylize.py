"""``animegen stylize``: photos to anime, with any model that has the Stylizer protocol."""

from __future__ import annotations

import logging
import math
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from animegen.cli import run
from animegen.core.checkpoint import load_model, pick_device
from animegen.core.config import compose_config
from animegen.core.errors import AnimegenError
from animegen.core.files import Format, Job, check_targets, plan_jobs
from animegen.core.protocols import Stylizer
from animegen.core.runs import resolve_checkpoint
from animegen.core.schema import Device
from animegen.core.tasks import pad_and_crop
from animegen.data.images import to_float, to_uint8
from animegen.data.photos import read_photo, shrink, write_photo
from animegen.nn.tape import TilingError
from animegen.nn.tiling import tileable, tiled

HELP = """animegen stylize checkpoint=... input=... output=... [key=value ...]

  animegen stylize checkpoint=last input=photo.jpg output=anime.jpg
  animegen stylize checkpoint=runs/my_run input=photos/ output=anime/ precision=bf16
  animegen stylize checkpoint=last input=photos/ output=anime/ strength=0.7 max_side=1920 format=png

checkpoint   last, a run folder, or a .ckpt file           runs=runs is where last looks
input        a picture, or a folder (recursive=true)
output       a picture, or a folder that gets the names and sub-folders of the input
device       auto, cpu, cuda, mps                          precision=fp32 or bf16
weights      ema (averaged, if the run kept any) or raw
strength     0 is the photo, 1 the drawing
tile         auto, or the largest side that is computed in one piece; 0: everything in one piece
max_side     scales larger pictures down first
format       keep, png, jpg, webp
overwrite    true replaces files that exist
on_error     skip or fail, for broken pictures

Orientation, EXIF, colour profile and transparency are kept where the format can. Exit code: 0 all done, 1 some
pictures were skipped, 2 a mistake in the command."""

#: Largest side computed in one piece with ``tile=auto``. On a CPU small tiles are also the fastest: their maps
#: stay in the cache, and the allocator hands out the same memory again instead of asking the system.
AUTO_TILE = {"cpu": 256}
AUTO_TILE_ELSEWHERE = 1024
SMALLEST_TILE = 64


class OnError(Enum):
    """What a broken picture does."""

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
    tile: Any = "auto"
    max_side: int | None = None
    format: Format = Format.keep
    recursive: bool = True
    overwrite: bool = False
    on_error: OnError = OnError.skip


# --- one photo --------------------------------------------------------------------------------------------


class _Network:
    """The model as a network, for tiled inference."""

    def __init__(self, model: Stylizer) -> None:
        self.model = model
        self.factor = model.factor
        self.tileable = getattr(model, "tileable", True)

    def __call__(self, images: Tensor) -> Tensor:
        return self.model.stylize(images, None)[0]


class PhotoStylist:
    """Applies a model to photos of any size, within the memory that there is.

    Args:
        model: in eval mode, on ``device``.
        device: where to compute.
        tile: largest side computed in one piece, 0 for any, ``None`` for the usual of the device.
        dtype: autocast type, ``None`` for full precision.
        strength: 0 returns the photo, 1 the drawing, between them their linear blend.
        note: is told in a sentence what else the user should know.
    """

    def __init__(
        self,
        model: Stylizer,
        device: torch.device | str = "cpu",
        tile: int | None = None,
        dtype: torch.dtype | None = None,
        strength: float = 1.0,
        note: Callable[[str], None] = print,
    ) -> None:
        self.device = torch.device(device)
        self.tile = AUTO_TILE.get(self.device.type, AUTO_TILE_ELSEWHERE) if tile is None else tile
        self.dtype, self.strength, self.note = dtype, strength, note
        # Convolutions on CPU and CUDA are faster in this order of the values.
        self._order = torch.contiguous_format if self.device.type == "mps" else torch.channels_last
        if isinstance(model, nn.Module):
            model.to(memory_format=self._order)  # type: ignore[call-overload]
        self._network = _Network(model)
        self._whole_only = False

    def __call__(self, pixels: Tensor) -> Tensor:
        """Stylise a photo, uint8 ``(3,H,W)`` to the same shape and type.

        Raises:
            AnimegenError: if the memory does not suffice.
        """
        photo = to_float(pixels)[None].to(self.device).contiguous(memory_format=self._order)
        drawing = self._draw(photo)
        return to_uint8(torch.lerp(photo, drawing, self.strength)[0]).cpu().contiguous()

    def _draw(self, photo: Tensor) -> Tensor:
        """Run the model; when the memory does not suffice, again in smaller tiles."""
        while True:
            tile = self._usable_tile(photo)
            try:
                network = partial(tiled, self._network, tile=tile, dtype=self.dtype)
                return pad_and_crop(network, photo, self._network.factor)
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                reason = " ".join(str(error).split())[:120]
            # Only now, without the exception, are the tensors of the failed attempt gone.
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._take_smaller_tiles(tile or max(photo.shape[-2:]), reason)

    def _take_smaller_tiles(self, tile: int, reason: str) -> None:
        smaller = tile // 2
        if self._whole_only or smaller < SMALLEST_TILE:
            raise AnimegenError(
                f"the memory of {self.device} does not suffice ({reason}): set max_side= to scale it down,"
                " or choose another device="
            )
        self.tile = smaller
        self.note(f"The memory of {self.device} did not suffice; going on in tiles of {smaller} pixels.")

    def _usable_tile(self, photo: Tensor) -> int:
        if self.tile == 0 or max(photo.shape[-2:]) <= self.tile or self._whole_only:
            return 0
        try:
            tileable(self._network, photo.shape[1], self.device, self.dtype)
        except TilingError as reason:
            self._whole_only = True
            self.note(f"This model cannot be run in tiles, since {reason}; large pictures take more memory.")
            return 0
        return self.tile


def _out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch means that memory ran out; on the CPU it has no class of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)


# --- all photos -------------------------------------------------------------------------------------------


@dataclass
class Summary:
    """What became of the photos."""

    done: int = 0
    seconds: float = 0.0
    #: One sentence for each: which photo, and why.
    skipped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rate = f", {self.done / self.seconds:.2f} images/s" if self.done and self.seconds else ""
        lines = [f"{self.done} done, {len(self.skipped)} skipped, {self.seconds:.1f} s{rate}"]
        return "\n".join([*lines, *(f"skipped: {reason}" for reason in self.skipped)])


def stylize_all(
    jobs: Sequence[Job],
    stylist: Callable[[Tensor], Tensor],
    max_side: int | None = None,
    skip_broken: bool = True,
    progress: Callable[[int], None] = lambda count: None,
) -> Summary:
    """Stylise photos one after the other.

    Args:
        jobs: what to read and where to write it.
        stylist: maps uint8 ``(3,H,W)`` to the same shape and type, e.g. a :class:`PhotoStylist`.
        max_side: scale larger photos down first.
        skip_broken: go on after a photo that cannot be read, or is too large for the memory.
        progress: is told the number of photos dealt with.

    Raises:
        AnimegenError: if a result cannot be written, or at the first broken photo without ``skip_broken``.
    """
    summary = Summary()
    began = time.perf_counter()
    for count, job in enumerate(jobs, start=1):
        try:
            photo = read_photo(job.source)
            photo = shrink(photo, max_side) if max_side else photo
            drawing = replace(photo, pixels=stylist(photo.pixels))
        except AnimegenError as error:
            reason = str(error) if str(job.source) in str(error) else f"'{job.source}': {error}"
            if not skip_broken:
                raise AnimegenError(f"{reason} (on_error=skip leaves such pictures out.)") from error
            summary.skipped.append(reason)
        else:
            write_photo(job.target, drawing)
            summary.done += 1
        progress(count)
    summary.seconds = time.perf_counter() - began
    return summary


class _Display:
    """A progress bar on a terminal, else about twenty plain lines."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (TextColumn("stylize"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.task = self.bar.add_task("stylize", total=total)

    def __enter__(self) -> _Display:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def note(self, text: str) -> None:
        """Print a sentence."""
        self.console.print(f"note: {text}", markup=False)

    def progress(self, count: int) -> None:
        """Show that so many photos are dealt with."""
        if self.bar is not None:
            self.bar.update(self.task, completed=count)
        elif self.total > 1 and (count % math.ceil(self.total / 20) == 0 or count == self.total):
            self.console.print(f"{count}/{self.total}")


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
    jobs = plan_jobs(config.input, config.output, config.format, config.recursive)
    check_targets(jobs, config.overwrite)
    checkpoint = resolve_checkpoint(str(Path(config.checkpoint).expanduser()), config.runs)
    device = pick_device(config.device.value)
    model = load_model(checkpoint, device, config.weights.value)
    if not isinstance(model, Stylizer):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, does not stylise pictures: use another."
        )
    dtype = torch.bfloat16 if config.precision.trainer == "bf16-mixed" else None
    with _Display(len(jobs)) as display:
        stylist = PhotoStylist(model, device, tile, dtype, config.strength, display.note)
        return stylize_all(jobs, stylist, config.max_side, config.on_error is OnError.skip, display.progress)


def _tile(value: Any) -> int | None:
    if value == "auto":
        return None
    if isinstance(value, int) and not isinstance(value, bool) and (value == 0 or value >= SMALLEST_TILE):
        return value
    raise AnimegenError(
        f"tile={value} is not possible: use auto, 0 (no tiles), or a side of at least {SMALLEST_TILE} pixels."
    )


def _quoted(word: str) -> str:
    """Quote a path for Hydra, to which brackets, commas and equals signs in file names mean something."""
    key, equals, value = word.partition("=")
    if key not in ("checkpoint", "input", "output", "runs") or not value or value[0] in "'\"":
        return word
    escaped = re.sub(r"(\\*)($|')", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
    return f"{key}{equals}'{escaped}'"


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen stylize`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return 0
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        ConfigStore.instance().store(group="schema", name="stylize", node=StylizeSchema, package="_global_")
        summary = stylize(compose_config("stylize", [_quoted(word) for word in words]))
        print(summary)
        return 1 if summary.skipped else 0

    return run(body)


if __name__ == "__main__":
    sys.exit(main())
