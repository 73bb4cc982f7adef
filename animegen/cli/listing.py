"""``animegen list``: available models, experiments, ablations, data sets, looks and losses."""

from __future__ import annotations

import fnmatch
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from animegen.cli.command import command
from animegen.config.groups import list_ablations, list_options
from animegen.config.looks import looks
from animegen.config.options import Options, option
from animegen.config.sources import config_root, exported_docs, package_folder
from animegen.config.studies import list_studies
from animegen.errors import AnimegenError, did_you_mean

KINDS = {
    **{"models": "model", "experiments": "experiment", "ablations": "ablation", "data": "data"},
    **{"looks": "", "losses": "", "studies": ""},
}


@dataclass
class ListOptions(Options):
    """List models, experiments, ablations, data, looks, losses and studies, with a description of each.

    The pattern is a shell pattern or a part of a name.
    """

    command: ClassVar[str] = "list"
    examples: ClassVar[Sequence[str]] = (
        *("models", "experiments 'animegan/*'", "losses"),
        "ablations 'animegan/no_*' words=true",
    )

    kind: str | None = option(None, f"what to list: {', '.join(KINDS)}; without it, everything", positional=True)
    pattern: str = option("*", "which names", positional=True)
    words: bool = option(False, "print the overrides of each ablation, to copy and change")


def entries(kind: str, pattern: str = "*") -> list[tuple[str, str]]:
    """Return (name, description) of the options of one kind whose name matches a shell pattern."""
    if kind not in KINDS:
        raise AnimegenError(f"animegen list knows {', '.join(KINDS)}, not '{kind}'.{did_you_mean(kind, KINDS)}")
    group = KINDS[kind]
    if kind == "looks":
        found = [(name, look.description) for name, look in looks().items()]
    elif kind == "losses":
        found = list(exported_docs(package_folder("losses")).items())
    elif kind == "studies":
        found = [(name, comment(path)) for name, path in list_studies().items()]
    else:
        options = [option.removeprefix(f"{group}/") for option in list_options() if option.startswith(f"{group}/")]
        found = [(name, description(f"{group}/{name}")) for name in options if name != "none"]
    return [entry for entry in found if fnmatch.fnmatch(entry[0], pattern) or pattern in entry[0]]


def description(option: str) -> str:
    """Return the description of an ablation, or the first sentence of the comment that heads a configuration file."""
    ablation = list_ablations().get(option.removeprefix("ablation/"))
    return ablation.description if ablation else comment(config_root() / f"{option}.yaml")


def comment(path: Path) -> str:
    """Return the first sentence of the comment at the head of a file."""
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines).split(". ")[0].removesuffix(".") if lines else ""


@command(ListOptions)
def main(options: ListOptions) -> None:
    """Print a table for each kind."""
    from rich.console import Console
    from rich.table import Table

    if options.words and options.kind != "ablations":
        raise AnimegenError("words=true is for ablations: animegen list ablations 'animegan/*' words=true")
    console = Console(highlight=False)
    kinds = [options.kind] if options.kind else list(KINDS)
    for kind in kinds:
        found = entries(kind, options.pattern)
        if not found and options.kind:
            names = [name for name, _ in entries(kind)]
            raise AnimegenError(f"No {kind} match '{options.pattern}'.{did_you_mean(options.pattern, names)}")
        if options.words:
            for name, text in found:
                print(f"# {name}: {text}", shlex.join(list_ablations()[name].overrides), sep="\n")
            return
        table = Table("name", "description", title=kind, title_justify="left", box=None, pad_edge=False)
        for name, text in found:
            table.add_row(name, text)
        if found:
            console.print(table)
            console.print()
