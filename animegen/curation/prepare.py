"""Data sets from videos; generated videos; key-frame projects checked, filtered, imported and completed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from animegen.curation.dataset import curate
from animegen.curation.options import Curation, PrepareOptions
from animegen.data.keyframes.folder import Report, clip_of, folder_project, inspect
from animegen.data.keyframes.layouts import import_layout
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.data.keyframes.suggest import suggest_keys
from animegen.files import check_new_folder, check_outputs, hidden_name, publish_folder, translate_io_errors, user_path
from animegen.media.images import write_image
from animegen.media.video.generated import write_generated_video
from animegen.toonworld.film import Film


def prepare(options: PrepareOptions, show: Console) -> int:
    """Run the task that the options select; return the exit code.

    Raises:
        AnimegenError: for invalid options, before anything is written.
    """
    settings = {"clip": options.clip, "resize": options.resize or None}
    if options.input is not None:
        return curate_videos(options, show)
    if options.toonworld is not None:
        return draw_video(options, show)
    if options.check is not None:
        return check(options.check, settings, show)
    if options.suggest_keys is not None:
        return suggest(options.suggest_keys, options.count, settings, show)
    output = str(options.output)
    if options.filter is not None:
        count = write_filtered(options.filter, output, options.radius, settings)
        show.print(f"{count} frames: {output}", markup=False)
        return 0
    place = import_layout(str(options.imported), output, options.resize)
    show.print(f"imported: {place}", markup=False)
    return check(place, settings, show)


def curate_videos(options: PrepareOptions, show: Console) -> int:
    """Make a data set of clips; return 1 if a video could not be read."""
    outcome = curate(
        *(str(options.input), str(options.output), options.part(Curation), options.jobs, options.share()),
        overwrite=options.overwrite,
        tell=lambda text: show.print(text, markup=False),
    )
    for problem in outcome.failed:
        show.print(f"- {problem}", markup=False)
    if outcome.missing:
        show.print(
            f"{outcome.missing} of {outcome.videos} videos are left to other shards; the last one writes the report."
        )
    else:
        clips = ", ".join(f"{side} {count}" for side, count in outcome.clips.items())
        show.print(f"clips: {clips}; report: {Path(str(options.output)) / 'REPORT.md'}", markup=False)
    return 1 if outcome.failed else 0


def draw_video(options: PrepareOptions, show: Console) -> int:
    """Write a ToonWorld video."""
    place = Path(str(options.output))
    check_outputs([place], options.overwrite)
    film = Film(
        shots=options.shots,
        look=str(options.toonworld),
        size=options.side,
        seed=options.world_seed,
        split="test",
        first_scene=options.scene,
        hold=options.hold,
    )
    write_generated_video(place, film, overwrite=options.overwrite)
    cuts = ", ".join(str(cut) for cut in film.cuts) or "none"
    show.print(f"{len(film)} frames at {film.fps:g} per second, cuts at {cuts}: {place}", markup=False)
    return 0


def suggest(folder: str, count: int, settings: dict[str, Any], show: Console) -> int:
    """Print which frames of a project to paint next, or first, and write them to its folder ``to_paint``."""
    place = user_path("suggest_keys", folder)
    if any((place / "keys").glob("[!.]*")):
        project = folder_project(folder, **settings)
        frames, names, keys = project.photo, project.names, project.keys
    else:
        frames, names = clip_of(folder, {key: value for key, value in settings.items() if value is not None})
        keys = []
    for suggestion in suggest_keys(frames, keys, count):
        file = place / "to_paint" / f"{names[suggestion.number]}.png"
        if not file.exists():  # it may be painted over
            write_image(file, frames[suggestion.number])
        show.print(f"{file.name}   leaves {suggestion.left:.0%} of what is not painted yet", markup=False)
    show.print(
        f"Paint these frames of '{place / 'to_paint'}', and save them as '{place / 'keys'}/<name>'.", markup=False
    )
    return 0


def check(folder: str | Path, settings: dict[str, Any], show: Console) -> int:
    """Print the content and the problems of a project; return 1 if there are problems."""
    _, report = inspect(folder, {key: value for key, value in settings.items() if value is not None})
    show_report(report, show)
    return 1 if report.problems else 0


def show_report(report: Report, show: Console) -> None:
    """Print a report."""
    for name, fact in report.facts.items():
        show.print(f"{name:<10}{fact}", markup=False)
    for sentence in (*report.problems, *report.doubts):
        show.print(f"- {sentence}", markup=False)
    ready = "ready to train, if these drawings have the right names" if report.doubts else "ready to train"
    show.print(f"{len(report.problems)} problems" if report.problems else ready, markup=False)


def write_filtered(folder: str, output: str, radius: int, settings: dict[str, Any]) -> int:
    """Write the frames of a project through the temporal filter as PNG; return their number.

    Raises:
        AnimegenError: if the folder for the result exists or cannot be written.
    """
    place = user_path("output", output)
    check_new_folder(place)
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
