"""The entry point ``animegen <command> [key=value ...]``; imports a command only when it is run."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

from animegen import __version__
from animegen.cli.process import keep_freed_memory, wait_briefly
from animegen.cli.streams import steady_streams
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import io_error_message


class Command(NamedTuple):
    """A command: the module with its ``main(arguments)``, and a description."""

    module: str
    about: str


COMMANDS = {
    "train": Command("animegen.cli.train", "train a model, a sweep or a study"),
    "eval": Command("animegen.cli.evaluate", "score a checkpoint and the baselines"),
    "compare": Command("animegen.cli.compare", "compare runs: tables, plots, images"),
    "stylize": Command("animegen.cli.stylize", "turn images and videos into anime"),
    "interpolate": Command("animegen.cli.interpolate", "generate frames between frames"),
    "generate": Command("animegen.cli.generate", "draw a clip between key frames"),
    "web": Command("animegen.cli.web", "photos, videos and in-betweens in a browser"),
    "export": Command("animegen.cli.export", "save a model as an ONNX or pt2 file"),
    "import": Command("animegen.cli.import_weights", "convert the weights of other projects"),
    "prepare": Command("animegen.cli.prepare", "make data sets from videos; check key-frame projects"),
    "bench": Command("animegen.cli.bench", "measure speed and memory"),
    "list": Command("animegen.cli.listing", "list models, experiments, ablations, data, looks, losses"),
    "doctor": Command("animegen.cli.doctor", "check hardware, programs and packages"),
    "completion": Command("animegen.cli.completion", "let bash or zsh complete commands, keys and options"),
}

#: Those that run networks.
COMPUTING = ("train", "eval", "stylize", "interpolate", "generate", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of a command line; return the exit code."""
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
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS, count=1) or f" The commands are: {', '.join(COMMANDS)}."
        print(f"animegen: there is no command '{name}'.{near}", file=sys.stderr)
        return 2
    if arguments is None and name in COMPUTING:  # the process is this command's own
        if name == "stylize":  # gains beside the encoder; training and in-betweens would lose on an idle machine
            wait_briefly()
        keep_freed_memory()
    # Imported now: commands need different libraries, some of which take seconds to import.
    return importlib.import_module(COMMANDS[name].module).main(rest)


def usage() -> str:
    """Return the text of ``animegen`` alone."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "animegen <command> [key=value ...]",
            "",
            "Train, compare, ablate and apply neural networks for anime images and video.",
            "",
            *lines,
            "",
            "animegen <command> --help explains the keys of a command, with examples.",
            "--debug shows the traceback of an error, --version the version.",
        ]
    )


def run(job: Callable[[], int | None]) -> int:
    """Run the body of a command; print a user error as one sentence and return exit code 2."""
    steady_streams()
    try:
        return job() or 0
    except AnimegenError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("animegen: interrupted.", file=sys.stderr)
        return 130
    except OSError as error:
        # Errors without a file (of a socket, a process) are bugs and keep their traceback.
        if not isinstance(error.filename, str | bytes):
            raise
        return _refuse(io_error_message(error, os.fsdecode(error.filename)))


def _refuse(message: str) -> int:
    if os.environ.get("ANIMEGEN_DEBUG"):
        traceback.print_exc()
    # File names need not be valid UTF-8, but any stream must accept them.
    print(f"animegen: {message}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    return 2


def quieten() -> None:
    """Hide hints and warnings of libraries that do not concern this run."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("animegen").setLevel(logging.INFO)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


if __name__ == "__main__":
    sys.exit(main())
