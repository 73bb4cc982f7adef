"""Export of a model as a graph in a file that runs without animegen: pt2 (torch.export) and ONNX."""

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

from animegen.errors import AnimegenError
from animegen.inference.options import FileFormat
from animegen.tasks.protocols import Exportable, Stylizer

#: ONNX operator sets that torch can write.
OPSETS = range(18, 24)
#: Name of the metadata in a pt2 file (``extra_files``); an ONNX file stores it in ``metadata_props``.
METADATA_FILE = "animegen.json"
#: Packages of the optional dependency group ``export``.
EXTRA = ("onnx", "onnxscript", "onnxruntime")
LARGEST_SIDE = 65536


# --- the graph ---------------------------------------------------------------------------------------------


class ExportWrapper(nn.Module):
    """The function that is exported: a model applied to single images of any size.

    Images are padded by reflection at the right and bottom edge to the next multiple of ``size_divisor``, and outputs
    are cropped, as :func:`~animegen.tasks.stylize.pad_and_crop` does. Both are implemented by index lookups: padding
    and slicing by torch would specialise the graph to sizes that are multiples, or to sizes that are not.

    Args:
        model: any :class:`~animegen.tasks.protocols.Stylizer`.
    """

    #: Names of the arguments, and of the result.
    inputs: tuple[str, ...] = ("photo",)
    output = "drawing"
    #: For the metadata.
    task = "stylise: photo to drawing"
    #: The command that applies the model.
    command = "stylize"

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.size_divisor = int(cast(Stylizer, model).size_divisor)
        #: Whether the exported graph is limited to batches of one image, see :func:`export_program`.
        self.one_by_one = False

    @property
    def smallest_side(self) -> int:
        """Smallest height and width of an image, in pixels."""
        return 4 * self.size_divisor  # smaller images have feature maps of one pixel, which torch specialises on

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.parameters(), torch.zeros(())).device

    def forward(self, photo: Tensor) -> Tensor:
        """Map (B,3,H,W) in [-1,1] to the same shape and range; H and W are at least :attr:`smallest_side`."""
        return self.cropped(cast(Stylizer, self.model).stylize(self.enlarged(photo), None)[0], photo)

    def expected(self, *inputs: Tensor) -> Tensor:
        """Return what the model makes of the inputs without being exported."""
        return cast(Stylizer, self.model).stylize(inputs[0], None)[0]

    def arguments(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs for test images (B,3,H,W)."""
        return (images,)

    def enlarged(self, images: Tensor) -> Tensor:
        """Pad images (B,3,H,W) at the right and bottom edge to the next multiples of ``size_divisor``."""
        rows, columns = (self._sources(side, images.device) for side in images.shape[-2:])
        return images.index_select(-2, rows).index_select(-1, columns)

    def cropped(self, output: Tensor, like: Tensor) -> Tensor:
        """Crop an output to the size of the images ``like``."""
        rows, columns = (torch.arange(side, device=output.device) for side in like.shape[-2:])
        return output.index_select(-2, rows).index_select(-1, columns)

    def _sources(self, side: int, device: torch.device) -> Tensor:
        """Return the source index for each index of the padded side."""
        index = torch.arange((side + self.size_divisor - 1) // self.size_divisor * self.size_divisor, device=device)
        return torch.where(index < side, index, 2 * (side - 1) - index)

    def drop_training_weights(self) -> None:
        """Delete the weights that the model does not name in ``exported_weights``, such as those of discriminators.

        Raises:
            AnimegenError: if the model cannot be exported.
        """
        if not isinstance(self.model, Exportable):
            return
        prefixes = tuple(f"{name}." for name in self.model.exported_weights())
        for path, module in self.model.named_modules():
            for tensors in (module._parameters, module._buffers):
                for name in tensors:
                    full = f"{path}.{name}." if path else f"{name}."
                    if not full.startswith(prefixes):
                        tensors[name] = None


def export_program(wrapper: ExportWrapper) -> ExportedProgram:
    """Return the graph of a model in eval mode, with dynamic height and width, and a dynamic batch size if possible.

    A model that processes the images of a batch one by one gets a graph for one image, see
    :attr:`ExportWrapper.one_by_one`.

    Raises:
        AnimegenError: if the model cannot be exported.
    """
    divisor, least = wrapper.size_divisor, wrapper.smallest_side
    # Sizes that are neither 1 nor equal nor multiples, so that the graph does not specialise on such a property.
    example = torch.zeros(1 if wrapper.one_by_one else 2, 3, 4 * divisor + 1, 6 * divisor + 2, device=wrapper.device)
    sides = {axis: Dim(name, min=least, max=LARGEST_SIDE) for axis, name in ((2, "height"), (3, "width"))}
    wrapper.drop_training_weights()
    program = None
    if not wrapper.one_by_one:
        with contextlib.suppress(Exception):
            program = _traced(wrapper, example, {0: Dim("batch", min=1), **sides})
    if program is None:
        wrapper.one_by_one = True
        try:
            program = _traced(wrapper, example[:1], sides)
        except AnimegenError:
            raise
        except Exception as error:
            raise AnimegenError(
                f"{type(wrapper.model).__name__} cannot be exported with free image sizes ({first_line(error)}):"
                f" apply it with animegen {wrapper.command}."
            ) from error
    # Stack traces contain source lines and local paths.
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _traced(wrapper: ExportWrapper, example: Tensor, dynamic: dict[int, Dim]) -> ExportedProgram:
    arguments = wrapper.arguments(example)
    shapes = tuple({axis: size for axis, size in dynamic.items() if axis < value.ndim} for value in arguments)
    # Size constraints that torch cannot prove become checks at run time instead of errors.
    with torch.no_grad(), _quiet():
        return torch.export.export(
            wrapper, arguments, dynamic_shapes=shapes, prefer_deferred_runtime_asserts_over_guards=True
        )


# --- the files ------------------------------------------------------------------------------------------------


def write_pt2(program: ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """Write a file for ``torch.export.load``, with the metadata as :data:`METADATA_FILE` inside."""
    content = io.BytesIO()  # torch's file writer ends the process if the disk is full
    with _quiet():
        torch.export.save(program, content, extra_files={METADATA_FILE: json.dumps(metadata, indent=2)})
    path.write_bytes(content.getbuffer())


def write_onnx(
    program: ExportedProgram,
    path: Path,
    metadata: dict[str, str],
    opset: int = 18,
    inputs: tuple[str, ...] = ExportWrapper.inputs,
    output: str = ExportWrapper.output,
) -> None:
    """Write an ONNX file with the names of inputs and output.

    Raises:
        AnimegenError: if the extra ``export`` is not installed, torch does not support the opset, or an operation of
            the model has no counterpart in ONNX.
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
                input_names=list(inputs),
                output_names=[output],
            )
        assert converted is not None
        make_shape = importlib.import_module("onnx_ir").Shape
        for value in (*converted.model.graph.inputs, *converted.model.graph.outputs):
            sizes = enumerate(cast(Any, value.shape))
            value.shape = make_shape([size if isinstance(size, int) else names[axis] for axis, size in sizes])
        for node in converted.model.graph:
            node.metadata_props.clear()  # origin in torch's graph
        converted.model.metadata_props.update(metadata)
        converted.save(path, external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise AnimegenError(
            f"The model cannot be converted to ONNX ({first_line(error)}): try another opset=, or format=pt2."
        ) from error


def require_onnx(opset: int) -> None:
    """Check that ONNX files with an operator set can be written.

    Raises:
        AnimegenError: if a package is missing, or torch does not support the operator set.
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


def load_exported(path: Path, format_: FileFormat) -> Callable[..., Tensor]:
    """Load an exported file as a function of its inputs.

    Raises:
        AnimegenError: if the runtime cannot load the file.
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
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        arrays = {name: value.cpu().numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, arrays)[0]).to(inputs[0].device)

    return run


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages and warnings of the exporters, which do not concern this model."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.onnx", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        rest = io.StringIO()  # torch prints the whole graph when it fails
        with warnings.catch_warnings(), contextlib.redirect_stdout(rest), contextlib.redirect_stderr(rest):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error message, shortened to fit into a sentence."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return " ".join(text.split())[:160]
