"""The content of reports: a section for each benchmark, images, and the page of one run."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from animegen.benchmarks.tables import image_strip
from animegen.errors import AnimegenError, did_you_mean
from animegen.files import completed, read_bytes
from animegen.reports import plots
from animegen.reports.clips import gif_strip, last_clip, small_gif
from animegen.reports.differences import Differences, by_model
from animegen.reports.elements import EmbeddedImage, Figure, Pair, Slides
from animegen.reports.page import Section, page
from animegen.reports.pareto import CAPTION, PARETO, pareto_plot
from animegen.reports.readme import small_jpeg
from animegen.reports.runs import RunFolder, load_run, read_curves, seedless
from animegen.reports.samples import enlarged, side_by_side
from animegen.reports.summary import summarise

#: The report of a run, in its folder.
REPORT = "report.html"
#: Previews in the report of a run, and the largest number of bytes of each, by the kind of file.
GALLERY = 12
LARGEST = {"png": 150_000, "gif": 500_000}
#: Rows whose first test photo has a slider between input and output; of a single row, three photos have one.
PAIRS = 6
_PREVIEW = re.compile(r"-[0-9]+\.(png|gif)$")

Rows = Mapping[str, Sequence[RunFolder]]
"""The runs by row: those of a row differ only in the seed."""

log = logging.getLogger(__name__)


def make_sections(rows: Rows, settings: Mapping[str, Any]) -> list[Section]:
    """Return a section for each benchmark; scores of different benchmarks are never combined in one table.

    Args:
        rows: the runs by row.
        settings: ``baseline``, ``metrics`` and ``samples``, see :mod:`animegen.reports.options`; each may be ``None``.

    Returns:
        The sections; an empty list if no run has scores.

    Raises:
        AnimegenError: if the baseline is not a row.
    """
    scored = [run for runs in rows.values() for run in runs if run.evaluation is not None]
    baseline = settings["baseline"]
    if baseline is not None and baseline not in rows:
        raise AnimegenError(
            f"baseline={baseline} is not a row.{did_you_mean(baseline, rows)} There are: {', '.join(rows)}."
        )
    benchmarks: list[RunFolder] = []
    for candidate in scored:
        if not any(candidate.comparable(other) for other in benchmarks):
            benchmarks.append(candidate)
    sections = []
    for number, benchmark in enumerate(benchmarks):
        mine: dict[str, list[RunFolder]] = {}
        for name, runs in rows.items():
            fitting = [r for r in runs if r.evaluation is None or r.comparable(benchmark)]
            elsewhere = not any(r.evaluation for r in fitting) and (number > 0 or any(r.evaluation for r in runs))
            if fitting and not elsewhere:
                mine[name] = fitting
        summary = summarise(mine, settings["metrics"], baseline if baseline in mine else None)
        title = f"{summary.task}, {summary.samples} test samples"
        title += f" (benchmark {number + 1} of {len(benchmarks)})" if len(benchmarks) > 1 else ""
        section = Section(title, summary, differing(mine), pairs=pairs(mine))
        suffix = f"_{number + 1}" if number else ""
        for name, image in _images(mine, section, settings).items():
            section.images[f"{Path(name).stem}{suffix}{Path(name).suffix}"] = image
        sections.append(section)
    return sections


def differing(rows: Rows) -> list[Differences]:
    """Return the differences between the configurations of rows of the same model."""
    return by_model({name: seedless(runs[0].config) for name, runs in rows.items() if len(runs[0].config) > 1})


def _images(rows: Rows, section: Section, settings: Mapping[str, Any]) -> dict[str, EmbeddedImage]:
    images = {}
    kept = [(name, next((r.samples for r in runs if r.samples), None)) for name, runs in rows.items()]
    shown = [(name, samples) for name, samples in kept if samples is not None]
    if shown:
        headers, strip = side_by_side(shown, settings["samples"])
        if not strip:
            count = len(shown[0][1].digests)
            raise AnimegenError(f"samples={settings['samples']} do not exist: the runs kept samples 0 to {count - 1}.")
        with TemporaryDirectory() as folder:
            image_strip(enlarged(strip), headers, Path(folder) / "strip.png")
            data = (Path(folder) / "strip.png").read_bytes()
        images["strip.png"] = EmbeddedImage(data, "png", f"The same test samples: {', '.join(headers)}.")
    newest = {
        name: next((clip for run in runs if (clip := last_clip(run.folder))), None) for name, runs in rows.items()
    }
    moving = gif_strip([(name, clip) for name, clip in newest.items() if clip is not None])
    if moving is not None:
        images["clips.gif"] = EmbeddedImage(moving, "gif", "The last preview clip of each row.")
    caption = "Final scores: a dot per seed, mean and spread; grey lines are trivial baselines."
    images["scores.png"] = EmbeddedImage(plots.png(plots.scores_plot(section.summary)), "png", caption)
    figure = pareto_plot(summarise(rows))
    if figure is not None:
        images[PARETO] = EmbeddedImage(plots.png(figure), "png", CAPTION)
    curves = {name: [read_curves(run.folder) for run in runs] for name, runs in rows.items()}
    there = sorted({metric for runs in curves.values() for run in runs for metric in run})
    figure = plots.curves_plot(curves, there)
    if figure is not None:
        images["curves.png"] = EmbeddedImage(
            plots.png(figure), "png", "Validation metrics over the train steps; the band spans all seeds."
        )
    return images


def pairs(rows: Rows) -> list[Pair]:
    """Return test photos and what became of them: several photos of one row, or one photo of several rows."""
    kept = {name: next((run.samples for run in runs if run.samples), None) for name, runs in rows.items()}
    shown = [(name, samples) for name, samples in kept.items() if samples and samples.columns[0] == "photo"][:PAIRS]
    numbers = range(min(3, len(shown[0][1].digests)) if len(shown) == 1 else 1)
    found = []
    for name, samples in shown:
        for number in numbers:
            files = [samples.folder / column / f"{number}.png" for column in ("photo", "model")]
            before, after = (small_jpeg(read_bytes(file)) for file in files)
            found.append(Pair(EmbeddedImage(before, "jpeg", "photo"), EmbeddedImage(after, "jpeg", name)))
    return found


def gallery(run: RunFolder) -> list[Figure]:
    """Return the previews of one run, with a slider over the train steps, and its losses."""
    gallery: list[Figure] = []
    for kind in ("png", "gif"):
        files = sorted(path for path in run.folder.glob(f"previews/*.{kind}") if _PREVIEW.search(path.name))
        count = min(GALLERY, len(files))
        slides = []
        for path in [files[round(place * (len(files) - 1) / max(count - 1, 1))] for place in range(count)]:
            data, caption = read_bytes(path), f"After train step {int(path.stem.rpartition('-')[2])}."
            small = small_jpeg if kind == "png" else small_gif
            slides.append(EmbeddedImage(small(data, LARGEST[kind]), "jpeg" if kind == "png" else kind, caption))
        gallery += [Slides(slides)] if slides else []
    totals = {name: curve for name, curve in read_curves(run.folder, "train/").items() if name.endswith("/total")}
    if totals and (figure := plots.curves_plot({run.title: [totals]}, sorted(totals))) is not None:
        gallery.append(EmbeddedImage(plots.png(figure), "png", "Objectives over the train steps."))
    return gallery


def write_page(folder: Path) -> None:
    """Write ``report.html`` into a run folder: scores, images, curves and previews in one self-contained file.

    A failure is logged as a warning and does not fail the run.
    """
    try:
        run = load_run(folder)
        rows = {run.title: [run]}
        sections = make_sections(rows, {"baseline": None, "metrics": None, "samples": None})
        command = [str(run.record["command"])] if "command" in run.record else []
        with completed(folder / REPORT) as hidden:
            html = page(f"Run {folder}", "", command, sections, rows, gallery(run))
            hidden.write_text(html, "utf-8", "backslashreplace")
    except (AnimegenError, OSError, ValueError) as error:
        log.warning("report.html was not written: %s", error)
