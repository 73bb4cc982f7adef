"""A model as a look: a small checkpoint of what its application needs, and a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from animegen import __version__
from animegen.config.looks import CARD, WEIGHTS
from animegen.config.trust import build_from
from animegen.engine.checkpoint import REMEDY, TRAINING_ONLY, load_model
from animegen.engine.module import AnimeModule
from animegen.engine.runs import resolve_checkpoint
from animegen.errors import AnimegenError
from animegen.files import check_outputs, completed
from animegen.inference.options import ExportOptions
from animegen.tasks.protocols import ClipGenerator, Interpolator, Stylizer

#: Command -> the protocol of the models that it applies; the first command of a model is its main one.
COMMANDS: dict[str, type] = {"stylize": Stylizer, "generate": ClipGenerator, "interpolate": Interpolator}

CARD_TEXT = """\
---
family: {family}
commands: [{commands}]
about: {about}
licence: unknown
---

# {name}

Data: name the training data here, with their licences.

    {command}
"""


def write_look(options: ExportOptions) -> None:
    """Write the checkpoint of a look, and a card if there is none, and print their size.

    Raises:
        AnimegenError: if the model cannot be applied, or a file exists, before anything is written.
    """
    folder = Path(options.output)
    checkpoint = resolve_checkpoint(options.checkpoint, options.runs)
    check_outputs([folder / WEIGHTS], options.overwrite)
    model = load_model(checkpoint, "cpu", options.weights.value, trust=options.trust)
    commands = [name for name, protocol in COMMANDS.items() if isinstance(model, protocol)]
    if commands == ["interpolate"]:
        commands.append("generate")  # which adapts interpolators
    if not commands:
        raise AnimegenError(f"The model of '{checkpoint}', {type(model).__name__}, has no application: use another.")
    with completed(folder / WEIGHTS, overwrite=options.overwrite) as partial:
        with partial.open("wb") as file:
            torch.save(slim(model, checkpoint, options.trust), file)
        load_model(partial, "cpu", trust=options.trust)
    if not (folder / CARD).exists():
        with completed(folder / CARD) as partial:
            partial.write_text(_card(folder.absolute().name, model, commands), "utf-8")
    print(f"{folder / WEIGHTS}: {(folder / WEIGHTS).stat().st_size / 1e6:.2f} MB; describe it in {folder / CARD}")


def slim(model: AnimeModule, checkpoint: Path, trust: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint that holds a model for application only, with weights in half precision.

    It names no file of the machine on which the model was trained: the configuration of the data is left out, except
    for the filter that application needs.

    Args:
        model: from :func:`~animegen.engine.checkpoint.load_model`, on the CPU.
        checkpoint: of the model, for messages.
        trust: see :func:`~animegen.engine.checkpoint.load_model`.
    """
    info = model.run_info
    left_out = (*TRAINING_ONLY, *model.training_only)
    config = {key: value for key, value in info["config"]["model"].items() if key not in left_out}
    outline = build_from(config, "model", f"The checkpoint '{checkpoint}'", REMEDY, base=nn.Module, trust=trust)
    weights = model.state_dict()
    halves = {name for name, _ in outline.named_parameters()}
    prefilter = (info["config"].get("data") or {}).get("prefilter")
    return {
        "state_dict": {
            name: _half(weights[name]) if name in halves else weights[name] for name in outline.state_dict()
        },
        "animegen": {
            "version": __version__,
            "config": {"model": config, "data": {"prefilter": prefilter} if prefilter else {}},
            "choices": {key: value for key, value in info.get("choices", {}).items() if key in ("model", "size")},
            "overrides": [],
            "metrics": {},
            "train_step": model.train_step,
        },
    }


def _half(weight: Tensor) -> Tensor:
    """Return a weight in half precision, or unchanged if its values are too large for that."""
    half = weight.half()
    return half if half.isfinite().all() else weight.clone()


def _card(name: str, model: AnimeModule, commands: Sequence[str]) -> str:
    """Return a card to complete."""
    experiment = model.run_info.get("choices", {}).get("experiment") or "none"
    return CARD_TEXT.format(
        name=name,
        family=type(model).__module__.split(".")[2] if type(model).__module__.startswith("animegen.models.") else "own",
        commands=", ".join(commands),
        about=f"{experiment}, {model.train_step} steps",
        command=f"animegen train experiment={experiment} train_steps={model.train_step}",
    )
