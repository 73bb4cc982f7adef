"""The keys of ``animegen compare``; this module imports no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from animegen.config.common import OverwriteOptions
from animegen.config.options import option


@dataclass
class CompareOptions(OverwriteOptions):
    """Compare runs: one table, plots, images, and what differs in their configurations.

    Writes report.html (self-contained), table.md, table.csv and the images. Runs that differ only in the seed form one
    row with mean and spread. study= also replaces the part of the study's README between the lines
    <!-- results --> and <!-- /results -->.
    """

    command: ClassVar[str] = "compare"
    examples: ClassVar[Sequence[str]] = (
        "study=toy",
        "runs/a runs/b",
        "'runs/animegan/*' metrics=[ssim,psnr] baseline=animegan/quickstart",
        "runs/a",
    )

    folders: list[str] = option([], "run folders, folders that contain runs, or patterns", path=True, positional=True)
    study: str | None = option(None, "name of a study, whose runs are compared")
    output: str | None = option(
        None, "folder of the report; null: report/ in the study or single run, else runs/compare/<time>", path=True
    )
    record: str | None = option(
        None, "folder of the README of the study; null: experiments/<name>, none: no README", path=True
    )
    baseline: str | None = option(
        None, "the row that the others are compared with; null: that of the study, or the first"
    )
    metrics: list[str] | None = option(None, "metrics to show, in this order; null: those of the study, or all")
    samples: list[int] | None = option(
        None, "test samples to show, counted from 0; null: those of the study, or all that were kept", minimum=0
    )
