"""A model as one file that runs without animegen, kept only if its results are those of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from animegen import __version__
from animegen.engine.checkpoint import load_model, pick_device
from animegen.engine.module import AnimeModule
from animegen.engine.runs import resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import check_outputs, completed
from animegen.inference import export_graph as graphs
from animegen.inference.export_graph import ExportWrapper
from animegen.inference.export_pair import PairWrapper
from animegen.inference.look import write_look
from animegen.inference.options import ExportOptions, FileFormat
from animegen.tasks.protocols import Stylizer

_LEVELS_PER_UNIT = 127.5


# --- the comparison -------------------------------------------------------------------------------------------


class Compared(NamedTuple):
    """The largest difference between two drawings of the same images, in levels of 255."""

    shape: tuple[int, ...]
    content: str
    levels: float


def sample_images(smallest_side: int, seed: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield test inputs: content and images (B,3,H,W) in [-1,1], of random sizes from ``smallest_side`` on."""
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


def compare(drawn: Callable[..., Tensor], drawing: ExportWrapper) -> list[Compared]:
    """Compare an exported function with its model on :func:`sample_images`.

    Raises:
        AnimegenError: if the function fails on one of them.
    """
    rows = []
    for content, images in sample_images(drawing.smallest_side):
        images = (images[:1] if drawing.one_by_one else images).to(drawing.device)
        inputs = drawing.arguments(images)
        with torch.no_grad():
            truth = drawing.expected(*inputs)
            try:
                result = drawn(*inputs)
            except Exception as error:
                raise AnimegenError(
                    f"The exported file fails on images {tuple(images.shape)} ({graphs.first_line(error)}):"
                    " it was not kept; try the other format=."
                ) from error
        same_shape = result.shape == truth.shape
        levels = float((result - truth).abs().max()) * _LEVELS_PER_UNIT if same_shape else math.inf
        rows.append(Compared(tuple(images.shape), content, levels))
    return rows


def show(rows: list[Compared]) -> None:
    """Print the comparison."""
    table = Table("images", "content", "max difference (levels of 255)")
    for row in rows:
        table.add_row("x".join(map(str, row.shape)), row.content, f"{row.levels:.4f}")
    Console(highlight=False).print(table)


def check(rows: list[Compared], tolerance: float) -> None:
    """Check that the exported function agrees with the model.

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


# --- the command ----------------------------------------------------------------------------------------------


def describe(model: AnimeModule, drawing: ExportWrapper, weights: str) -> dict[str, str]:
    """Return what an exported file says about itself."""
    batch = "1" if drawing.one_by_one else "batch"
    return {
        "animegen": __version__,
        "model": str(model.run_info.get("choices", {}).get("model") or type(model).__name__),
        "train_step": str(model.train_step),
        "weights": weights,
        "task": drawing.task,
        "layout": f"{batch},3,height,width; RGB; float32",
        "input_range": "-1,1",
        "output_range": "-1,1",
        "size_divisor": str(drawing.size_divisor),
        "padding": "inside: any height and width from smallest_side on",
        "smallest_side": str(drawing.smallest_side),
    }


def wrapped(model: AnimeModule) -> ExportWrapper:
    """Return the function of a model that is exported."""
    return ExportWrapper(model) if isinstance(model, Stylizer) else PairWrapper(model)


def remembers(drawing: ExportWrapper) -> bool:
    """Return whether the output for a frame depends on earlier frames."""
    if not isinstance(drawing.model, Stylizer):
        return False
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
    overwrite: bool = False,
) -> list[Compared]:
    """Write a model to a file after verifying that it gives the same images as the model.

    Args:
        model: in eval mode. It loses the weights that drawing does not need.
        path: path of the file.
        format_: format of the file.
        metadata: additional metadata to store.
        opset: operator set of an ONNX file.
        tolerance: largest accepted difference in levels of 255.
        overwrite: replace a file of that name.

    Returns:
        How far the file's drawings are from the model's.

    Raises:
        AnimegenError: if the model cannot be exported, or the file disagrees with it.
    """
    drawing = wrapped(model).eval()
    program = graphs.export_program(drawing)
    if remembers(drawing):
        print(
            "note: this model remembers earlier frames; the file draws every image as if it were the first of a video."
        )
    if isinstance(drawing, PairWrapper) and drawing.had_prior:
        print("note: this network is exported without its flow prior, so it finds the motion itself, less well.")
    facts = {**describe(model, drawing, "given"), **(metadata or {})}
    with completed(path, overwrite=overwrite) as partial:
        if format_ is FileFormat.pt2:
            graphs.write_pt2(program, partial, facts)
        else:
            graphs.write_onnx(program, partial, facts, opset, drawing.inputs, drawing.output)
        rows = compare(graphs.load_exported(partial, format_), drawing)
        show(rows)
        check(rows, tolerance)
    named = ", ".join((*drawing.inputs, drawing.output))
    print(f"{named}: {facts['layout']} in [-1,1], height and width from {facts['smallest_side']}")
    return rows


def export(options: ExportOptions) -> None:
    """Export the model of the options, and print the result.

    Raises:
        AnimegenError: for invalid options, before anything is written, or if the export fails.
    """
    path = Path(options.output)
    if options.format is FileFormat.look:
        return write_look(options)
    if options.format is FileFormat.onnx:
        graphs.require_onnx(options.opset)
    checkpoint = resolve_checkpoint(options.checkpoint, options.runs)
    check_outputs([path], options.overwrite)
    # An ONNX file has no device, and is compared on the CPU.
    device = pick_device(options.device.value if options.format is FileFormat.pt2 else "cpu")
    model = load_model(checkpoint, device, options.weights.value, trust=options.trust)
    if not isinstance(model, Stylizer) and not PairWrapper.takes(model):
        raise AnimegenError(
            f"The model of '{checkpoint}', {type(model).__name__}, does not stylize images, and has no network that"
            " interpolates: use another checkpoint."
        )
    metadata = {"weights": options.weights.value}
    export_model(model, path, options.format, metadata, options.opset, options.tolerance, options.overwrite)
    size = path.stat().st_size / 2**20
    print(f"{path}: {size:.1f} MiB")
