"""The command ``animegen <verb> [overrides]``: finds the verb's module and runs it."""

from __future__ import annotations

import difflib
import logging
import os
import runpy
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from animegen import __version__
from animegen.cli.streams import steady_streams
from animegen.errors import AnimegenError
from animegen.files import io_error_message


class Verb(NamedTuple):
    """A verb of the command line."""

    module: str
    does: str
    example: str


VERBS = {
    "train": Verb("animegen.cli.train", "train a model", "animegen train experiment=animegan/quickstart"),
    "eval": Verb("animegen.cli.evaluate", "score a checkpoint beside its baselines", "animegen eval checkpoint=last"),
    "compare": Verb("animegen.cli.compare", "one table of many runs", "animegen compare study=toy"),
    "stylize": Verb(
        "animegen.cli.stylize",
        "photos and films to anime",
        "animegen stylize checkpoint=last input=photos/ output=anime/",
    ),
    "interpolate": Verb(
        "animegen.cli.interpolate",
        "frames between frames",
        "animegen interpolate checkpoint=last input=film.mp4 output=smooth.mp4",
    ),
    "generate": Verb(
        "animegen.cli.generate",
        "a clip from its first and its last frame",
        "animegen generate checkpoint=last first=a.png last=b.png output=clip.mp4",
    ),
    "export": Verb(
        "animegen.cli.export",
        "a model as one ONNX or pt2 file",
        "animegen export checkpoint=last format=onnx output=anime.onnx",
    ),
    "import": Verb(
        "animegen.cli.import_weights",
        "weights of other projects",
        "animegen import source=generator.pt output=theirs.ckpt",
    ),
    "prepare": Verb(
        "animegen.cli.prepare", "films to clips; key-frame projects", "animegen prepare input=films/ output=dataset"
    ),
    "bench": Verb("animegen.cli.bench", "measure speed and memory", "animegen bench model=animegan/v2 size=base"),
    "list": Verb(
        "animegen.cli.listing", "list models, experiments, ablations, data", "animegen list experiments 'animegan*'"
    ),
    "doctor": Verb("animegen.cli.doctor", "what this machine has and lacks", "animegen doctor"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb as ``python -m animegen.<verb>`` would; return the exit code."""
    steady_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in words:
        words.remove("--debug")
        os.environ["ANIMEGEN_DEBUG"] = "1"
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"animegen {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else f" The verbs are: {', '.join(VERBS)}."
        print(f"animegen: there is no verb '{name}'.{hint}", file=sys.stderr)
        return 2
    sys.argv = [sys.argv[0], *rest]
    try:
        # As a module run by name, so that distributed training can start the same command again.
        runpy.run_module(VERBS[name].module, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def usage() -> str:
    """Return the text of ``animegen`` alone."""
    width = max(map(len, VERBS))
    lines = ["animegen <verb> [key=value ...]   (--debug shows tracebacks)", ""]
    for name, verb in VERBS.items():
        lines += [f"  {name:<{width}}  {verb.does}", f"  {'':<{width}}    {verb.example}"]
    return "\n".join([*lines, "", "animegen <verb> --help explains the keys of a verb."])


def run(job: Callable[[], int | None]) -> int:
    """Run the body of a verb; a user's mistake becomes one sentence and exit code 2."""
    steady_streams()
    try:
        return job() or 0
    except AnimegenError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("animegen: interrupted.", file=sys.stderr)
        return 130
    except OSError as error:
        # Accesses that name no file (a socket, a process) are our own mistakes and keep their traceback.
        if not isinstance(error.filename, str | bytes):
            raise
        return _refuse(io_error_message(error, os.fsdecode(error.filename)))


def _refuse(message: str) -> int:
    if os.environ.get("ANIMEGEN_DEBUG"):
        traceback.print_exc()
    print(f"animegen: {message}", file=sys.stderr)
    return 2


def quieten() -> None:
    """Keep tips and notices of libraries that say nothing about this run off the terminal."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("animegen").setLevel(logging.INFO)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


if __name__ == "__main__":
    sys.exit(main())
