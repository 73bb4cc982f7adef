"""Convert the weights of other projects to checkpoints of animegen."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from animegen import __version__, models
from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.engine.checkpoint import TRAINING_ONLY, load_model
from animegen.engine.module import AnimeModule
from animegen.engine.runs import merged_overrides
from animegen.engine.weight_conversion import WeightConversion, choose_conversion, convert, read_state
from animegen.errors import AnimegenError
from animegen.files import check_outputs, completed


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    conversion: WeightConversion
    model: str
    tensors: int
    parameters: int
    choices: Sequence[str]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"format      {self.conversion.name}: {self.conversion.about}",
                f"model       {self.model}, {' '.join(self.choices)}",
                f"tensors     {self.tensors}, all of them used",
                f"parameters  {self.parameters:,}",
            ]
        )


@lru_cache
def conversions() -> tuple[WeightConversion, ...]:
    """Return the conversions of all model families."""
    found: list[WeightConversion] = []
    for family in pkgutil.iter_modules(models.__path__):
        name = f"{models.__name__}.{family.name}.weight_conversion"
        if family.ispkg and importlib.util.find_spec(name) is not None:
            found += importlib.import_module(name).CONVERSIONS
    return tuple(found)


def import_weights(
    source: Path, output: Path, format_: str = "auto", words: Sequence[str] = (), overwrite: bool = False
) -> Imported:
    """Write a checkpoint of animegen with the weights of a file of another project.

    Args:
        source: ``.pt`` or ``.pth`` file; no code in it is run.
        output: the checkpoint, which appears only when it is complete and can be loaded.
        format_: name of a conversion, or ``auto``.
        words: overrides of ``animegen train`` that win over the conversion's, such as ``model=animegan/paired``.
        overwrite: replace a file that exists.

    Raises:
        AnimegenError: if the file cannot be read, is of no known project or does not fit, or nothing may be written.
    """
    if output.suffix != ".ckpt":
        raise AnimegenError(f"output='{output}' is no name of a checkpoint: let it end in .ckpt.")
    check_outputs([output], overwrite)
    state = read_state(source)
    conversion = choose_conversion(state, conversions(), format_, source)
    overrides = merged_overrides(conversion.overrides(state), words)
    config = plain(compose_config("train", overrides))
    node = {key: value for key, value in config["model"].items() if key not in TRAINING_ONLY}
    model = build(node, "model")
    network = getattr(model, conversion.network, None)
    if not isinstance(model, AnimeModule) or not isinstance(network, nn.Module):
        raise AnimegenError(f"{type(model).__name__} has no network '{conversion.network}': choose another model=.")
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(convert(state, conversion, shapes, source))
    choices = dict(word.lstrip("+").split("=", 1) for word in overrides if "." not in word.partition("=")[0])
    content = {
        "state_dict": model.state_dict(),
        "animegen": {
            "version": __version__,
            "config": config,
            "choices": choices,
            "overrides": overrides,
            "metrics": {},
            "train_step": 0,
            "imported": {"file": source.name, "format": conversion.name, "sha256": _sha256(source)},
        },
    }
    with completed(output, overwrite=overwrite) as partial:
        with partial.open("wb") as file:
            torch.save(content, file)
        load_model(partial, "cpu", trust=True)  # of the words of the command line
    return Imported(
        conversion,
        choices.get("model", type(model).__name__),
        len(state),
        sum(parameter.numel() for parameter in network.parameters()),
        [word.lstrip("+") for word in overrides if "." in word.partition("=")[0]],
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
