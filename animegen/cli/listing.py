"""``animegen list``: what there is to train, change and train on, read from the configuration files."""

from __future__ import annotations

import fnmatch
import sys
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.table import Table

from animegen.cli.main import run
from animegen.config.compose import CONFIG_MODULE, list_options
from animegen.errors import AnimegenError, did_you_mean
from animegen.launch.study import list_studies

KINDS = {
    **{"models": "model", "experiments": "experiment", "ablations": "ablation", "data": "data"},
    **{"losses": "", "studies": ""},
}

HELP = """animegen list [models|experiments|ablations|data|losses|studies] [pattern]

Lists the options of the configuration (and the loss modules) with a line about each. The pattern is a shell pattern:
  animegen list experiments 'animegan/*'"""


def entries(kind: str, pattern: str = "*") -> list[tuple[str, str]]:
    """Return (name, description) of the options of one kind whose name matches a shell pattern."""
    if kind not in KINDS:
        raise AnimegenError(f"animegen list knows {', '.join(KINDS)}, not '{kind}'.{did_you_mean(kind, KINDS)}")
    group = KINDS[kind]
    if kind == "losses":
        from animegen import losses  # torch takes a while to import, and only this kind needs it

        found = [(name, (getattr(losses, name).__doc__ or "").split("\n")[0].rstrip(".")) for name in losses.__all__]
    elif kind == "studies":
        found = [(name, comment(path)) for name, path in list_studies().items()]
    else:
        options = [option.removeprefix(f"{group}/") for option in list_options() if option.startswith(f"{group}/")]
        found = [(name, description(f"{group}/{name}")) for name in options if name != "none"]
    return [entry for entry in found if fnmatch.fnmatch(entry[0], pattern) or pattern in entry[0]]


def description(option: str) -> str:
    """Return the first sentence of the comment at the head of a configuration file."""
    return comment(Path(str(resources.files(CONFIG_MODULE))) / f"{option}.yaml")


def comment(path: Path) -> str:
    """Return the first sentence of the comment at the head of a file."""
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# ").rstrip())
    return " ".join(lines).split(". ")[0].removesuffix(".") if lines else ""


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        if words and words[0] in ("-h", "--help"):
            print(HELP)
            return
        if len(words) > 2:
            raise AnimegenError("animegen list takes a kind and a pattern: animegen list experiments 'animegan/*'")
        kinds = [words[0]] if words else list(KINDS)
        pattern = words[1] if len(words) > 1 else "*"
        console = Console(highlight=False)
        for kind in kinds:
            found = entries(kind, pattern)
            if not found and len(kinds) == 1:
                names = [name for name, _ in entries(kind)]
                raise AnimegenError(f"No {kind} match '{pattern}'.{did_you_mean(pattern, names)}")
            table = Table("name", "what it is", title=kind, title_justify="left", box=None, pad_edge=False)
            for name, text in found:
                table.add_row(name, text)
            if found:
                console.print(table)
                console.print()

    return run(body)
