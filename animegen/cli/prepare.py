"""``animegen prepare``: films to clips for training; key-frame projects checked, filtered, imported and completed."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from rich.console import Console

from animegen.cli.main import quieten, run
from animegen.cli.prepare_dataset import curate_films, sweep
from animegen.config.compose import compose_config
from animegen.data.keyframes.folder import Report, folder_project, inspect
from animegen.data.keyframes.layouts import import_layout
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.data.keyframes.suggest import suggest_keys
from animegen.engine.runs import literal_paths
from animegen.errors import AnimegenError
from animegen.files import exists_error, hidden_name, publish_folder, translate_io_errors, user_path
from animegen.media.images import write_image
from animegen.media.video.generated import write_generated_film
from animegen.toonworld.film import Film

HELP = """animegen prepare <what>=<folder> [key=value ...]

  animegen prepare input=films/ output=dataset            clips for training, and a report of what was left out and why
  animegen prepare input=films/ output=scenes every=2 length=[15,25]         every second frame, longer scenes
  animegen prepare -m input=films/ output=dataset shard=0,1,2,3              shared out, on any launcher of Hydra

A film is cut into shots; held drawings, dark and flickering frames, and what moves not at all, too far or without
sense are left out, and clips that look like earlier ones. It goes on where it was stopped. Train with
data=triplets/folders data.folder=dataset.

keys: length=[5,25] (drawings per clip), every, short_side, format=jpg|png|webp, bars, per_shot, repeat, holdout, jobs,
      shard=0/4, overwrite, and the limits held, dark, bright, flicker, fast, unexplained, still, uneven
      (what they mean: conf/prepare.yaml)

  animegen prepare check=my_clip                          what is in a key-frame project, and what is wrong with it
  animegen prepare suggest_keys=my_clip count=3           which frames to draw next
  animegen prepare filter=my_clip output=clean_frames     its frames, with noise taken off along the motion
  animegen prepare import=theirs_train output=my_clip     a project of Few-Shot-Patch-Based-Training or a port of it

A project is a folder with frames/ (or a film) and keys/, the drawings of some frames under their frames' names;
perhaps masks/ (white: to be learnt) and guides/<name>/.

  animegen prepare film=photo output=film.mp4             a film of the generated world, with sound, to try things on
  animegen prepare film=meadow output=twos.mkv shots=[48,48] side=256 hold=2     photo | meadow | dusk | print

keys: shots (frames of each), side, hold (frames per drawing), scene (of the first shot), world_seed, overwrite

keys: output=<folder>, clip=<folder or film elsewhere>, count, radius (of the filter, in frames), resize=true (scale
      drawings to their frames). Nothing is ever replaced. Exit code: 0, 1 if check found problems, 2 for a mistake."""

TASKS = ("input", "film", "check", "suggest_keys", "filter", "imported")


@dataclass
class PrepareSchema:
    """Keys of ``animegen prepare``."""

    input: str | None = None
    film: str | None = None
    check: str | None = None
    suggest_keys: str | None = None
    filter: str | None = None
    imported: str | None = None
    output: str | None = None
    clip: str | None = None
    count: int = 3
    radius: int = 15
    resize: bool = False
    length: Any = (5, 25)
    every: int = 1
    held: float = 0.0
    dark: float = 16.0
    bright: float = 245.0
    flicker: float = 12.0
    fast: float = 0.2
    unexplained: float = 10.0
    still: float = 0.00065
    uneven: float = 2.0
    per_shot: int | None = None
    repeat: int | None = 4
    holdout: float = 0.1
    short_side: int | None = 540
    format: str = "jpg"
    bars: bool = True
    jobs: int = 1
    shard: Any = None
    shards: int | None = None
    shots: list[int] = field(default_factory=lambda: [24, 24])
    side: int = 128
    hold: int | None = None
    scene: int = 0
    world_seed: int = 0
    overwrite: bool = False


def prepare(config: DictConfig, show: Console) -> int:
    """Do the one thing that the configuration asks for; return the exit code.

    Raises:
        AnimegenError: for a mistake in the configuration, before anything is written.
    """
    tasks = [name for name in TASKS if config[name] is not None]
    if len(tasks) != 1:
        told = " and ".join(tasks) or "nothing"
        raise AnimegenError(
            f"animegen prepare does one of input, film, check, suggest_keys, filter and import; asked for: {told}."
        )
    task = tasks[0]
    needs = task in ("filter", "imported", "input", "film")
    if needs != bool(config.output):
        name = "import" if task == "imported" else task
        raise AnimegenError(
            f"animegen prepare {name}= {'needs output=<folder>' if needs else 'writes nothing: leave output= out'}."
        )
    if task == "input":
        return curate_films(config, show)
    if task == "film":
        return draw_film(config, show)
    settings: dict[str, Any] = {"clip": config.clip, "resize": config.resize or None}
    if task == "check":
        return check(config.check, settings, show)
    if task == "suggest_keys":
        project = folder_project(config.suggest_keys, **settings)
        for suggestion in suggest_keys(project.photo, project.keys, config.count):
            name = project.names[suggestion.number]
            show.print(f"{name}   with it {suggestion.left:.0%} of what the drawn frames do not cover is left")
        return 0
    if task == "filter":
        count = write_filtered(config.filter, config.output, config.radius, settings)
        show.print(f"{count} frames: {config.output}")
        return 0
    place = import_layout(config.imported, config.output, config.resize)
    show.print(f"imported: {place}")
    return check(place, settings, show)


def draw_film(config: DictConfig, show: Console) -> int:
    """Write a film of the generated world.

    Raises:
        AnimegenError: for values that the world does not have, or a file that exists or cannot be written.
    """
    place = user_path("output", config.output)
    if os.path.lexists(place) and not config.overwrite:
        raise exists_error(place)
    film = Film(
        shots=list(config.shots),
        look=config.film,
        size=config.side,
        seed=config.world_seed,
        split="test",
        first_scene=config.scene,
        hold=config.hold,
    )
    write_generated_film(place, film, overwrite=config.overwrite)
    cuts = ", ".join(str(cut) for cut in film.cuts) or "none"
    show.print(f"{len(film)} frames at {film.fps:g} per second, cuts at {cuts}: {place}")
    return 0


def check(folder: str | Path, settings: dict[str, Any], show: Console) -> int:
    """Print what is in a project and what is wrong with it; return 1 if anything is."""
    _, report = inspect(folder, {key: value for key, value in settings.items() if value is not None})
    show_report(report, show)
    return 1 if report.problems else 0


def show_report(report: Report, show: Console) -> None:
    """Print a report."""
    for name, fact in report.facts.items():
        show.print(f"{name:<10}{fact}", markup=False)
    for problem in report.problems:
        show.print(f"- {problem}", markup=False)
    show.print(f"{len(report.problems)} problems" if report.problems else "ready to train", markup=False)


def write_filtered(folder: str, output: str, radius: int, settings: dict[str, Any]) -> int:
    """Write the frames of a project through the temporal filter as PNG; return their number.

    Raises:
        AnimegenError: if the folder for the result exists or cannot be written.
    """
    place = user_path("output", output)
    if os.path.lexists(place):
        raise AnimegenError(f"'{place}' exists: choose another output= for the frames.")
    project = folder_project(folder, **settings)
    clip = BilateralFilter(radius=radius)(project.photo)
    partial = hidden_name(Path(os.path.abspath(place)))
    with translate_io_errors(place, "written"):
        try:
            for number, name in enumerate(project.names):
                write_image(partial / f"{name}.png", clip[number])
            publish_folder(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return len(project)


def main(arguments: list[str] | None = None) -> int:
    """Run ``animegen prepare`` with command-line words; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)

    def body() -> int:
        if any(word in ("-h", "--help") for word in words):
            print(HELP)
            return 0
        quieten()
        ConfigStore.instance().store(group="schema", name="prepare", node=PrepareSchema, package="_global_")
        # A word of Python cannot be the name of a key.
        renamed = [f"imported={word[7:]}" if word.startswith("import=") else word for word in words]
        given = literal_paths(renamed, ("input", "output"))
        if {"-m", "--multirun"} & set(words):
            return sweep(given)
        return prepare(compose_config("prepare", given), Console(highlight=False, soft_wrap=True))

    return run(body)
