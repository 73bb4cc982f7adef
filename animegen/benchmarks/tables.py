"""Results of a benchmark as a terminal table, Markdown, JSON, and an image strip."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich.markup import escape
from torch import Tensor

from animegen.benchmarks.benchmark import Scores
from animegen.benchmarks.registry import PRIVILEGED, metric_info
from animegen.benchmarks.wide_table import METRIC, NAME, Column, WideTable, wrapped
from animegen.errors import AnimegenError
from animegen.media.images import to_uint8, write_image

_ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
_OF_FRAME = re.compile(r"(\w+)_at_\d+")
_NOTE = "uses the truth (drawings of the photos, or motion); excluded from the ranking"


def best_methods(scores: Scores, metric: str, privileged: Collection[str] = PRIVILEGED) -> set[str]:
    """Return the methods with the best mean of a metric as it is shown, privileged ones left out.

    Empty for a descriptive metric, and if nothing was measured.
    """
    info = metric_info(metric)
    means = {name: _mean(scores, name, metric) for name in scores if name not in privileged}
    shown = {name: round(mean, info.digits) for name, mean in means.items() if mean is not None and math.isfinite(mean)}
    if info.better == "none" or not shown:
        return set()
    best = max(shown.values()) if info.better == "higher" else min(shown.values())
    return {name for name, mean in shown.items() if mean == best}


def rich_table(
    scores: Scores, title: str = "", spread: bool = False, privileged: Collection[str] = PRIVILEGED
) -> WideTable:
    """Return a table for the terminal: a row per metric, a column per method, the best value of each row in bold.

    Metrics of single frames of a clip, such as ``psnr_at_3``, are left out.

    Args:
        scores: result of `Benchmark.evaluate`.
        title: text above the table.
        spread: show the standard deviation over the images behind the mean.
        privileged: methods to mark with a star and to leave out when the best is chosen.
    """
    metrics = [metric for metric in _metrics(scores) if not _OF_FRAME.fullmatch(metric)]
    best = {metric: best_methods(scores, metric, privileged) for metric in metrics}
    columns = []
    for name in sorted(scores, key=lambda name: name != "model"):  # the model first, the others in their order
        cells = [_cell(scores, name, metric, spread) for metric in metrics]
        cells = [
            f"[bold]{cell}[/bold]" if name in best[metric] else cell
            for metric, cell in zip(metrics, cells, strict=True)
        ]
        star = "*" if name in privileged else ""
        columns.append(Column(escape(wrapped(name + star, NAME)), cells, dim=bool(star)))
    labels = Column("metric", [escape(wrapped(_heading(metric), METRIC)) for metric in metrics])
    notes = [f"* {_NOTE}"] if any(name in privileged for name in scores) else []
    if frames := sorted({found[1] for found in map(_OF_FRAME.fullmatch, _metrics(scores)) if found}):
        notes.append(f"{' and '.join(f'{metric}_at_<frame>' for metric in frames)}: in table.md, which output= writes")
    return WideTable(labels, columns, title, "\n".join(notes))


def markdown_table(scores: Scores, spread: bool = False, privileged: Collection[str] = PRIVILEGED) -> str:
    """Return the scores as Markdown, a row per method; privileged baselines have a footnote. Ends with a newline."""
    metrics = _metrics(scores)
    lines = [
        "| method | " + " | ".join(_heading(metric) for metric in metrics) + " |",
        "|---|" + "---:|" * len(metrics),
    ]
    for name in scores:
        cells = []
        for metric in metrics:
            cell = _cell(scores, name, metric, spread)
            cells.append(f"**{cell}**" if name in best_methods(scores, metric, privileged) else cell)
        label = name.replace("|", "\\|") + (" \\*" if name in privileged else "")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    if any(name in privileged for name in scores):
        lines += ["", f"\\* {_NOTE}."]
    return "\n".join(lines) + "\n"


def class_titles(by_class: Mapping[str, Scores]) -> dict[str, str]:
    """Return the heading of the table of each class: its name and number of samples."""
    counts = {label: _count(scores) for label, scores in by_class.items()}
    return {label: f"{label} motion, n = {count}" for label, count in counts.items()}


def markdown_classes(by_class: Mapping[str, Scores], privileged: Collection[str] = PRIVILEGED) -> str:
    """Return a Markdown table with heading for each class; empty without classes."""
    titles = class_titles(by_class)
    return "".join(f"\n{titles[label]}\n\n{markdown_table(by_class[label], False, privileged)}" for label in by_class)


def to_json(
    scores: Scores,
    task: str,
    main: str,
    privileged: Collection[str] = PRIVILEGED,
    by_class: Mapping[str, Scores] | None = None,
) -> dict[str, Any]:
    """Return the result as plain data for `json.dumps(..., allow_nan=False)`, with the meaning of its metrics.

    Returns:
        {"task", "main", "methods": {method: {metric: {"mean", "std", "n"}}}, "metrics": {metric: {"unit", "better",
        "description"}}, "privileged": [method]} and, for samples divided into classes, "by_motion":
        {class: {method: ...}}. Values that are not finite are None.
    """
    return {
        "task": task,
        "main": main,
        "methods": _plain(scores),
        **({"by_motion": {label: _plain(part) for label, part in by_class.items()}} if by_class else {}),
        "metrics": {
            metric: {"unit": info.unit, "better": info.better, "description": info.description}
            for metric, info in ((metric, metric_info(metric)) for metric in _metrics(scores))
        },
        "privileged": [name for name in scores if name in privileged],
    }


def image_strip(
    rows: Sequence[Sequence[Tensor]],
    headers: Sequence[str],
    path: str | Path,
    overwrite: bool = False,
    gap: int = 4,
) -> None:
    """Write a labelled contact sheet: a row per sample, a column per method, headers above the columns.

    Args:
        rows: images (3, H, W) in [-1, 1], of any sizes.
        headers: a label per column, shortened to the width of the column.
        path: the file, written atomically; its suffix selects the format.
        overwrite: replace an existing file.
        gap: white pixels between images.

    Raises:
        AnimegenError: if the file exists and may not be replaced, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise AnimegenError(f"The image '{path}' exists already: choose another name or set overwrite=true.")
    if not rows or any(len(row) != len(headers) for row in rows):
        raise ValueError(f"image_strip needs rows of {len(headers)} images, got {[len(row) for row in rows]}")
    width = max(picture.shape[-1] for row in rows for picture in row)
    heights = [max(picture.shape[-2] for picture in row) for row in rows]
    font = ImageFont.load_default(size=12)
    top = 12 + 2 * gap
    size = (gap + len(headers) * (width + gap), top + sum(heights) + len(rows) * gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, header in enumerate(headers):
        draw.text((gap + column * (width + gap), gap), _fitting(header, font, draw, width), fill="black", font=font)
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            pixels = to_uint8(picture.detach().cpu()).permute(1, 2, 0).contiguous().numpy()
            sheet.paste(Image.fromarray(pixels), (gap + column * (width + gap), top))
        top += height + gap
    write_image(path, torch.from_numpy(np.array(sheet)).permute(2, 0, 1))


def _plain(scores: Scores) -> dict[str, Any]:
    return {
        name: {metric: {key: _finite(value) for key, value in score.items()} for metric, score in row.items()}
        for name, row in scores.items()
    }


def _count(scores: Scores) -> int:
    return max((int(score["n"] or 0) for row in scores.values() for score in row.values()), default=0)


def _metrics(scores: Scores) -> list[str]:
    """Return all metrics in order of first occurrence."""
    return list(dict.fromkeys(metric for row in scores.values() for metric in row))


def _mean(scores: Scores, name: str, metric: str) -> float | None:
    score = scores[name].get(metric)
    return None if score is None else score["mean"]


def _heading(metric: str) -> str:
    info = metric_info(metric)
    return " ".join(part for part in (metric, f"({info.unit})" if info.unit else "", _ARROWS[info.better]) if part)


def _cell(scores: Scores, name: str, metric: str, spread: bool) -> str:
    mean = _mean(scores, name, metric)
    if mean is None:
        return "–"
    digits = metric_info(metric).digits
    deviation = scores[name][metric]["std"]
    return f"{mean:.{digits}f}" + (f" ±{deviation:.{digits}f}" if spread and deviation is not None else "")


def _finite(value: float | int | None) -> float | int | None:
    return None if value is None or not math.isfinite(value) else value


def _fitting(
    text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, draw: ImageDraw.ImageDraw, width: int
) -> str:
    """Shorten a text to at most `width` pixels."""
    shortened = text
    while len(shortened) > 1 and draw.textlength(shortened, font=font) > width:
        text = text[:-1]
        shortened = text + "…"
    return shortened
