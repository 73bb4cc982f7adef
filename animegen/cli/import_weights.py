"""``animegen import``: the weights of other projects as checkpoints."""

from __future__ import annotations

from pathlib import Path

from animegen.cli.command import command
from animegen.config.sources import calls_in, package_folder
from animegen.inference.options import ImportOptions


def formats() -> dict[str, str]:
    """Return name -> description of the formats that can be imported, read without importing the models."""
    calls = [
        call
        for path in sorted(package_folder("models").glob("*/weight_conversion.py"))
        for call in calls_in(path, "WeightConversion")
    ]
    return {str(call["name"]): str(call["about"]) for call in calls}


def _help() -> str:
    return "Formats:\n" + "\n".join(f"  {name:<20}  {about}" for name, about in formats().items())


@command(ImportOptions, more=_help, passed=("model",))
def main(options: ImportOptions, model: list[str]) -> None:
    """Print the imported weights."""
    from animegen.inference.import_weights import import_weights  # imports PyTorch

    output = Path(options.output)
    print(import_weights(Path(options.source), output, options.format, model, options.overwrite))
    print(f"{output}: apply it with animegen stylize checkpoint={output} input=... output=...")
