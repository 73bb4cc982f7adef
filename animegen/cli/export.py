"""``animegen export``: a model as one file that runs without animegen, kept only if it draws the same pictures."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig
from rich.console import Console
from rich.table import Table
from torch import Tensor

from animegen import __version__
from animegen.cli.main import run
from animegen.config.common import Device
from animegen.config.compose import compose_config
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.module import AnimeModule
from animegen.engine.runs import literal_paths, resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.inference import export_graph as graphs
from animegen.inference.export_graph import Drawing, FileFormat
from animegen.inference.targets import Job, check_targets
from animegen.tasks.protocols import Stylizer

HELP = """animegen export checkpoint=... format=... output=... [key=value ...]

  animegen export checkpoint=last format=onnx output=anime.onnx
  animegen export checkpoint=runs/my_run format=pt2 output=anime.pt2 device=cuda

checkpoint   last, a run folder, or a .ckpt file           runs=runs is where last looks
format       pt2: for torch.export.load, needs torch only. onnx: for ONNX runtimes; pip install "animegen[export]"
output       <name>.pt2 or <name>.onnx; overwrite=true replaces a file that exists
device       where a pt2 file runs: cpu, cuda, mps, auto; an ONNX file runs anywhere
weights      ema (averaged, if the run kept any) or raw
opset        of an ONNX file, from 18 to 23
tolerance    largest difference from the model that is accepted, in levels of 255

The file is one function: photos (batch,3,height,width), RGB, float32 in [-1,1], to drawings of the same shape and
range. Height and width are free, and so is the batch for most models; the smallest side is in its metadata. Before the
file gets its name it is run and compared with the model on pictures of several sizes."""

_LEVELS_PER_UNIT = 127.5


@dataclass
class ExportSchema:
    """Keys of ``animegen export``."""

    checkpoint: str = "???"
    format: FileFormat = MISSING
    output: str = "???"
    runs: str = "runs"
    device: Device = Device.cpu
    weights: str = "ema"
    opset: int = 18
    tolerance: float = 1.0
    overwrite: bool = False


# --- the comparison -------------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """The largest difference between two drawings of the same pictures, in levels of 255."""

    shape: tuple[int, ...]
    content: str
    levels: float


def sample_pictures(smallest_side: int, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield what to compare on: content and pictures (B,3,H,W) in [-1,1], of random sizes from ``smallest_side`` on."""
    generator = torch.Generator().manual_seed(seed)

    def sides() -> list[int]:
        largest = max(96, 3 * smallest_side)
        return torch.randint(smallest_side, largest + 1, (2,), generator=generator).tolist()

    def noise(batch: int, height: int, width: int) -> Tensor:
        return torch.rand(batch, 3, height, width, generator=generator) * 2 - 1

    yield "noise", noise(1, smallest_side, smallest_side)
    yield "noise", noise(2, *sides())
    yield "gradients", F.interpolate(noise(1, 3, 4), sides(), mode="bicubic").clamp(-1, 1)
    yield "patches", F.interpolate(noise(3, 7, 5), sides(), mode="nearest")
    yield "black and white", F.interpolate(noise(1, 9, 9), sides(), mode="nearest").sign()


def compare(drawn: Callable[[Tensor], Tensor], drawing: Drawing) -> list[Compared]:
    """Compare an exported function with its model on :func:`sample_pictures`.

    Raises:
        AnimegenError: if the function fails on one of them.
    """
    rows = []
    model = cast(Stylizer, drawing.model)
    for content, pictures in sample_pictures(drawing.smallest_side):
        pictures = (pictures[:1] if drawing.one_by_one else pictures).to(drawing.device)
        with torch.no_grad():
            truth = model.stylize(pictures, None)[0]
            try:
                result = drawn(pictures)
            except Exception as error:
                raise AnimegenError(
                    f"The exported file fails on pictures {tuple(pictures.shape)} ({graphs.first_line(error)}):"
                    " it was not kept; try the other format=."
                ) from error
        same_shape = result.shape == truth.shape
        levels = float((result - truth).abs().max()) * _LEVELS_PER_UNIT if same_shape else math.inf
        rows.append(Compared(tuple(pictures.shape), content, levels))
    return rows


def show(rows: list[Compared]) -> None:
    """Print the comparison."""
    table = Table("pictures", "content", "max difference (levels of 255)")
    for row in rows:
        table.add_row("x".join(map(str, row.shape)), row.content, f"{row.levels:.4f}")
    Console(highlight=False).print(table)


def check(rows: list[Compared], tolerance: float) -> None:
    """Refuse a file that draws something else.

    Raises:
        AnimegenError: if a difference is larger than ``tolerance``, in levels of 255, or not a number.
    """
    worst = max(rows, key=lambda row: math.inf if math.isnan(row.levels) else row.levels)
    if not worst.levels <= tolerance:
        raise AnimegenError(
            f"The exported file differs from the model by up to {worst.levels:.3g} levels of 255 ({worst.content},"
            f" {'x'.join(map(str, worst.shape))}), more than tolerance={tolerance:g}: it was not kept; try the other"
            " format=, or allow it with a larger tolerance=."
        )


# --- the verb -------------------------------------------------------------------------------------------------


def describe(model: AnimeModule, drawing: Drawing, weights: str) -> dict[str, str]:
    """Return what an exported file says about itself."""
    batch = "1" if drawing.one_by_one else "batch"
    return {
        "animegen": __version__,
        "model": str(model.run_info.get("choices", {}).get("model") or type(model).__name__),
        "train_step": str(model.train_step),
        "weights": weights,
        "task": "stylise: photo to drawing",
        "layout": f"{batch},3,height,width; RGB; float32",
        "input_range": "-1,1",
        "output_range": "-1,1",
        "factor": str(drawing.factor),
        "padding": "inside: any height and width from smallest_side on",
        "smallest_side": str(drawing.smallest_side),
    }


def remembers(drawing: Drawing) -> bool:
    """Tell whether the drawing of a frame depends on earlier frames."""
    frame = torch.zeros(1, 3, drawing.smallest_side, drawing.smallest_side, device=drawing.device)
    with torch.no_grad():
        return cast(Stylizer, drawing.model).stylize(frame, None)[1] is not None


def export_model(
    model: AnimeModule,
    path: Path,
    format_: FileFormat,
    metadata: dict[str, str] | None = None,
    opset: int = 18,
    tolerance: float = 1.0,
) -> list[Compared]:
    """Write a model as a file that appears only if it draws what the model draws.

    Args:
        model: a Stylizer in eval mode. It loses the weights that drawing does not need.
        path: of the file.
        format_: of the file.
        metadata: to store besides.
        opset: of an ONNX file.
        tolerance: largest accepted difference in levels of 255.

    Returns:
        How far the file's drawings are from the model's.

    Raises:
        AnimegenError: if the model cannot be exported, or the file draws something else.
    """
    drawing = Drawing(model).eval()
    program = graphs.export_program(drawing)
    if remembers(drawing):
        print(
            "note: this model remembers earlier frames; the file draws every picture as if it were the first of a film."
        )
    facts = {**describe(model, drawing, "given"), **(metadata or {})}
    with completed(path) as partial:
        if format_ is FileFormat.pt2:
            graphs.write_pt2(program, partial, facts)
        else:
            graphs.write_onnx(program, partial, facts, opset)
        rows = compare(graphs.load_exported(partial, format_), drawing)
        show(rows)
        check(rows, tolerance)
    print(f"photos and drawings {facts['layout']} in [-1,1], height and width from {facts['smallest_side']}")
    return rows


def export(config: DictConfig) -> None:
    """Do what the configuration asks for.

    Raises:
        AnimegenError: for a mistake in the configuration, before anything is written, or if it cannot be done.
    """
    path, format_ = Path(config.output).expanduser(), config.format
    if path.suffix.lower() != f".{format_.value}":
        raise AnimegenError(
            f"output='{path}' and format={format_.value} do not fit: let the name end in .{format_.value}."
        )
    if not config.tolerance > 0:
        raise AnimegenError(f"tolerance={config.tolerance} is not possible: it must be above 0 levels of 255.")
    if format_ is FileFormat.onnx:
        graphs.require_onnx(config.opset)
    checkpoint = resolve_checkpoint(str(Path(config.checkpoint).expanduser()), config.runs)
    check_targets([Job(checkpoint, path)], config.overwrite)
    # An ONNX file knows no device, and is compared on the CPU.
    device = pick_device(config.device.value if format_ is FileFormat.pt2 else "cpu")
    model = load_model(checkpoint, device, config.weights)
    if not isinstance(model, Stylizer):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, does not stylise pictures: use another."
        )
    export_model(model, path, format_, {"weights": config.weights}, config.opset, config.tolerance)
    size = path.stat().st_size / 2**20
    print(f"{path}: {size:.1f} MiB")


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen export`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        ConfigStore.instance().store(group="schema", name="export", node=ExportSchema, package="_global_")
        export(compose_config("export", literal_paths(words, ("checkpoint", "output", "runs"))))

    return run(body)
