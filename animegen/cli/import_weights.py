"""``animegen import``: a generator that another project trained, as a checkpoint of animegen."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from hydra.core.config_store import ConfigStore
from torch import nn

from animegen import __version__, models
from animegen.cli.main import run
from animegen.config.compose import compose_config, plain
from animegen.config.instantiate import build
from animegen.engine.checkpoint import TRAINING_ONLY, load_model
from animegen.engine.module import AnimeModule
from animegen.engine.runs import literal_paths, merged_overrides
from animegen.engine.weight_conversion import Importer, choose_importer, read_state, translate
from animegen.errors import AnimegenError
from animegen.files import completed, user_path
from animegen.inference.targets import Job, check_targets


@dataclass
class ImportSchema:
    """Keys of ``animegen import``."""

    source: str = "???"
    output: str = "???"
    format: str = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    importer: Importer
    model: str
    tensors: int
    parameters: int
    choices: Sequence[str]

    def __str__(self) -> str:
        return "\n".join(
            [
                f"format      {self.importer.name}: {self.importer.about}",
                f"model       {self.model}, {' '.join(self.choices)}",
                f"tensors     {self.tensors}, all of them used",
                f"parameters  {self.parameters:,}",
            ]
        )


@lru_cache
def importers() -> tuple[Importer, ...]:
    """Return the importers of all model families."""
    found: list[Importer] = []
    for family in pkgutil.iter_modules(models.__path__):
        name = f"{models.__name__}.{family.name}.importers"
        if family.ispkg and importlib.util.find_spec(name) is not None:
            found += importlib.import_module(name).IMPORTERS
    return tuple(found)


def import_weights(
    source: Path, output: Path, format_: str = "auto", words: Sequence[str] = (), overwrite: bool = False
) -> Imported:
    """Write a checkpoint of animegen with the weights of a file of another project.

    Args:
        source: ``.pt`` or ``.pth`` file; no code in it is run.
        output: the checkpoint, which appears only when it is complete and can be loaded.
        format_: name of an importer, or ``auto``.
        words: overrides of ``animegen train`` that win over the importer's, such as ``model=animegan/paired``.
        overwrite: replace a file that exists.

    Raises:
        AnimegenError: if the file cannot be read, is of no known project or does not fit, or nothing may be written.
    """
    if output.suffix != ".ckpt":
        raise AnimegenError(f"output='{output}' is no name of a checkpoint: let it end in .ckpt.")
    check_targets([Job(source, output)], overwrite)
    state = read_state(source)
    importer = choose_importer(state, importers(), format_, source)
    overrides = merged_overrides(importer.overrides(state), words)
    config = plain(compose_config("train", overrides))
    node = {key: value for key, value in config["model"].items() if key not in TRAINING_ONLY}
    model = build(node, "model")
    network = getattr(model, importer.network, None)
    if not isinstance(model, AnimeModule) or not isinstance(network, nn.Module):
        raise AnimegenError(f"{type(model).__name__} has no network '{importer.network}': choose another model=.")
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    network.load_state_dict(translate(state, importer, shapes, source))
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
            "imported": {"file": source.name, "format": importer.name, "sha256": _sha256(source)},
        },
    }
    with completed(output, overwrite=overwrite) as partial:
        with partial.open("wb") as file:
            torch.save(content, file)
        load_model(partial, "cpu")
    return Imported(
        importer,
        choices.get("model", type(model).__name__),
        len(state),
        sum(parameter.numel() for parameter in network.parameters()),
        [word.lstrip("+") for word in overrides if "." in word.partition("=")[0]],
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def help_text() -> str:
    """Return the text of ``--help``."""
    names = "\n".join(f"  {importer.name:<20} {importer.about}" for importer in importers())
    return f"""animegen import source=... output=... [key=value ...]

  animegen import source=generator.pt output=theirs.ckpt
  animegen import source=generator.pt output=theirs.ckpt model.generator.upsample=bilinear

source       a .pt or .pth file with a generator's state dict; it is read as data, no code in it is run
output       <name>.ckpt, for stylize, eval and export; overwrite=true replaces a file that exists
format       auto, or one of those below
model        the model to fill: the format's own, or e.g. animegan/paired; model.<key>=... changes its settings

Every tensor of the file must be used and every one of the network filled. Formats:

{names}"""


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen import`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        if any(word in ("-h", "--help") for word in words):
            print(help_text())
            return
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        ConfigStore.instance().store(group="schema", name="import", node=ImportSchema, package="_global_")
        about_model = [word for word in words if _key(word).split(".")[0] == "model"]
        mine = literal_paths([word for word in words if word not in about_model], ("source", "output"))
        config: Any = compose_config("import", mine)
        source, output = user_path("source", config.source), user_path("output", config.output)
        print(import_weights(source, output, config.format, about_model, config.overwrite))
        print(f"{output}: apply it with animegen stylize checkpoint={output} input=... output=...")

    return run(body)


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")
