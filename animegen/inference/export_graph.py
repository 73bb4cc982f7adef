"""A model as a graph in a file that runs without animegen: torch's own format and ONNX."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from animegen.errors import AnimegenError
from animegen.inference.options import FileFormat
from animegen.tasks.protocols import Stylizer

#: Operator sets of ONNX that torch can write.
OPSETS = range(18, 24)
#: Name of the metadata inside a pt2 file (``extra_files``); an ONNX file has them in ``metadata_props``.
METADATA_FILE = "animegen.json"
#: Packages of the extra ``export``.
EXTRA = ("onnx", "onnxscript", "onnxruntime")
LARGEST_SIDE = 65536


# --- the function ---------------------------------------------------------------------------------------------


class Drawing(nn.Module):
    """What a model does to single pictures of any size, as one function that can be exported with free sizes.

    The picture is reflected at the right and bottom edge up to the next multiple of the model's ``factor``, and the
    drawing is cropped, as :func:`~animegen.tasks.stylize.pad_and_crop` does. Both are done by look-up here: torch's
    padding and slicing would tie the graph to sizes that are a multiple, or to those that are not.

    Args:
        model: any :class:`~animegen.tasks.protocols.Stylizer`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.factor = int(cast(Stylizer, model).factor)
        #: The exported graph takes batches of one picture only; see :func:`export_program`.
        self.one_by_one = False

    @property
    def smallest_side(self) -> int:
        """Height and width of the smallest picture, in pixels."""
        return 4 * self.factor  # with less, maps inside become single pixels, which torch takes for a case of its own

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.parameters(), torch.zeros(())).device

    def forward(self, photo: Tensor) -> Tensor:
        """Map (B,3,H,W) in [-1,1] to the same shape and range; H and W are at least :attr:`smallest_side`."""
        height, width = photo.shape[-2:]
        home = photo.device
        photo = photo.index_select(-2, self._reflected(height, home)).index_select(-1, self._reflected(width, home))
        drawing = cast(Stylizer, self.model).stylize(photo, None)[0]
        rows, columns = torch.arange(height, device=home), torch.arange(width, device=home)
        return drawing.index_select(-2, rows).index_select(-1, columns)

    def _reflected(self, side: int, device: torch.device) -> Tensor:
        """Return which pixel to take at each place of the padded side."""
        place = torch.arange((side + self.factor - 1) // self.factor * self.factor, device=device)
        return torch.where(place < side, place, 2 * (side - 1) - place)


class _GradientsError(Exception):
    """The model computes gradients when it is applied."""


class _Used(TorchFunctionMode):
    """Notes which tensors take part in a computation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.is_grad_enabled():
            raise _GradientsError
        self.seen.update(id(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor))
        return func(*args, **(kwargs or {}))


def drop_unused(drawing: Drawing, example: Tensor) -> None:
    """Delete the weights that drawing a picture does not read, such as a discriminator's.

    Raises:
        AnimegenError: if the model trains while it draws: there is no function to export then.
    """
    name = type(drawing.model).__name__
    try:
        with torch.no_grad(), _Used() as used:
            drawing(example)
    except _GradientsError as error:
        raise AnimegenError(
            f"{name} cannot be exported, since it computes gradients for every picture that it draws:"
            " apply it with animegen stylize."
        ) from error
    for module in drawing.modules():
        for tensors in (module._parameters, module._buffers):
            for key, value in tensors.items():
                if value is not None and id(value) not in used.seen:
                    tensors[key] = None


def export_program(drawing: Drawing) -> ExportedProgram:
    """Return the graph of a drawing function in eval mode, with free height and width, and free batch if possible.

    A model that handles the pictures of a batch one by one gets a graph for one picture: ``drawing.one_by_one`` tells.

    Raises:
        AnimegenError: if torch cannot make it, and why.
    """
    factor, least = drawing.factor, drawing.smallest_side
    # Sizes that are neither 1 nor equal nor multiples, lest the graph takes such a property for the rule.
    example = torch.zeros(2, 3, 4 * factor + 1, 6 * factor + 2, device=drawing.device)
    sides = {axis: Dim(name, min=least, max=LARGEST_SIDE) for axis, name in ((2, "height"), (3, "width"))}
    drop_unused(drawing, example)
    try:
        program = _traced(drawing, example, {0: Dim("batch", min=1), **sides})
    except AnimegenError:
        raise
    except Exception:
        drawing.one_by_one = True
        try:
            program = _traced(drawing, example[:1], sides)
        except Exception as error:
            raise AnimegenError(
                f"{type(drawing.model).__name__} cannot be exported with free picture sizes ({first_line(error)}):"
                " apply it with animegen stylize."
            ) from error
    # Lines of source code with their paths on this machine: nothing that a file to pass on should hold.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _traced(drawing: Drawing, example: Tensor, free: dict[int, Dim]) -> ExportedProgram:
    # Facts about sizes that torch cannot prove are checked when the file runs, instead of refused.
    with torch.no_grad(), _quiet():
        return torch.export.export(
            drawing, (example,), dynamic_shapes=(free,), prefer_deferred_runtime_asserts_over_guards=True
        )


# --- the files ------------------------------------------------------------------------------------------------


def write_pt2(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Write a file for ``torch.export.load``, with the metadata as :data:`METADATA_FILE` inside."""
    content = io.BytesIO()  # torch's own writer ends the process when a disk is full
    with _quiet():
        torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata, indent=2)})
    path.write_bytes(content.getbuffer())


def write_onnx(program: ExportedProgram, path: Path, metadata: dict[str, str], opset: int = 18) -> None:
    """Write an ONNX file with input ``photo`` and output ``drawing``.

    Raises:
        AnimegenError: if the extra ``export`` is not installed, the opset is none that torch writes, or an operation of
            the model has no counterpart.
    """
    require_onnx(opset)
    names = {0: "batch", 2: "height", 3: "width"}
    try:
        with _quiet():
            converted = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=opset,
                input_names=["photo"],
                output_names=["drawing"],
            )
        assert converted is not None
        make_shape = importlib.import_module("onnx_ir").Shape
        for value in (*converted.model.graph.inputs, *converted.model.graph.outputs):
            sizes = enumerate(cast(Any, value.shape))
            value.shape = make_shape([size if isinstance(size, int) else names[axis] for axis, size in sizes])
        for node in converted.model.graph:
            node.metadata_props.clear()  # where in torch's graph it came from
        converted.model.metadata_props.update(metadata)
        converted.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise AnimegenError(
            f"The model cannot be converted to ONNX ({first_line(error)}): try another opset=, or format=pt2."
        ) from error


def require_onnx(opset: int) -> None:
    """Check that ONNX files of an operator set can be written here.

    Raises:
        AnimegenError: if a package is missing, or torch does not write that set.
    """
    if opset not in OPSETS:
        raise AnimegenError(f"opset={opset} is not possible: use one from {OPSETS[0]} to {OPSETS[-1]}.")
    for package in EXTRA:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise AnimegenError(
                f'format=onnx needs the package {package}, which cannot be imported: pip install "animegen[export]",'
                " or use format=pt2."
            ) from error


def load_exported(path: Path, format_: FileFormat) -> Callable[[Tensor], Tensor]:
    """Return the function that a file holds.

    Raises:
        AnimegenError: if its runtime does not take the file.
    """
    try:
        if format_ is FileFormat.pt2:
            with _quiet():
                return torch.export.load(path).module()
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise AnimegenError(
            f"The exported file cannot be read again ({first_line(error)}): try another opset=, or the other format=."
        ) from error
    return lambda photo: torch.from_numpy(session.run(None, {"photo": photo.cpu().numpy()})[0]).to(photo.device)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep notices of the exporters that say nothing about this model off the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """Return the first line of an error that says anything, cut to a length that fits a sentence."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return " ".join(text.split())[:160]
