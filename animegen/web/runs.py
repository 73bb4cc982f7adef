"""The newest runs, as the page shows them: a table, and the newest preview of each."""

from __future__ import annotations

import shutil
from pathlib import Path

from animegen.engine.runs import RECORD, files_of_runs
from animegen.errors import AnimegenError
from animegen.files import user_path
from animegen.media.photos import read_photo, shrink, write_photo
from animegen.reports.runs import RunFolder, load_run

HEADERS = ("Run", "Recipe", "Status", "Steps", "Started", "Score", "Baseline")
#: Number of runs, and longer side of their previews in pixels.
NEWEST, PREVIEW_SIDE = 20, 1600


def newest_runs(runs: str) -> tuple[list[RunFolder], list[str]]:
    """Return the newest runs below a folder, and a sentence for each damaged record."""
    found, problems = [], []
    for record in files_of_runs(user_path("runs", runs), RECORD):
        try:
            found.append(load_run(record.parent))
        except AnimegenError as error:
            problems.append(str(error))
    return sorted(found, key=lambda run: str(run.record.get("started")), reverse=True)[:NEWEST], problems


def table(found: list[RunFolder], runs: str) -> list[list[str]]:
    """Return a row of `HEADERS` for each run."""
    return [
        [
            name_of(run, runs),
            run.title,
            run.status,
            str(run.record.get("train_step", "")),
            str(run.record.get("started", ""))[:16].replace("T", " "),
            *_scores(run),
        ]
        for run in found
    ]


def previews(found: list[RunFolder], runs: str, folder: Path) -> list[tuple[str, str]]:
    """Copy the newest preview of each run into a folder, reduced; return (file, caption)."""
    shown = []
    for number, run in enumerate(found):
        files = [path for path in run.folder.glob("previews/*") if path.suffix in (".png", ".gif")]
        if not files:
            continue
        newest = max(files, key=lambda path: path.stem)
        copy = folder / f"{number}{'.gif' if newest.suffix == '.gif' else '.jpg'}"
        if newest.suffix == ".gif":
            shutil.copyfile(newest, copy)
        else:
            write_photo(copy, shrink(read_photo(newest), PREVIEW_SIDE))
        shown.append((str(copy), f"{name_of(run, runs)}, {newest.stem}"))
    return shown


def name_of(run: RunFolder, runs: str) -> str:
    """Return the folder of a run relative to that of all runs."""
    return run.folder.relative_to(user_path("runs", runs)).as_posix()


def _scores(run: RunFolder) -> tuple[str, str]:
    """Return the main score of a run, and that of its first baseline."""
    if run.evaluation is None:
        return "", ""
    metric, baseline = run.evaluation["main"], next(iter(run.evaluation["methods"]))
    scores = (run.score(method, metric) for method in ("model", baseline))
    mine, other = ("" if score is None else f"{score:.3f}" for score in scores)
    return f"{metric} {mine}", f"{baseline} {other}"
