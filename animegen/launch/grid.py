"""Grids: the runs of a study or a sweep, and the overrides that complete each of them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from animegen.config.compose import compose_choices, plain, quoted
from animegen.config.fitting import check_ablations
from animegen.config.schema import GridOptions
from animegen.engine.runs import has_record, read_record
from animegen.errors import AnimegenError
from animegen.launch.launchers import check_launcher, check_search, launcher_of
from animegen.reports.differences import CIRCUMSTANCES, differences


@dataclass(frozen=True)
class Job:
    """A run of a grid.

    Attributes:
        name: shown to the user.
        words: overrides, without those about the process (``output``, ``threads``).
        folder: of the run.
        config: the configuration that the overrides compose, as ``run.json`` holds it.
    """

    name: str
    words: tuple[str, ...]
    folder: Path
    config: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """Runs in one folder, and how they are started.

    Attributes:
        title: shown to the user.
        folder: contains the folders of the runs.
        jobs: the runs; none for a search, which chooses them itself.
        options: how to start them.
        launcher: overrides that choose one of Hydra's launchers.
        search: overrides of a search; empty for a list of runs.
        record: (name, content) of the file that describes the grid.
        again: the command that runs what is missing.
        compare: the command that compares the runs.
    """

    title: str
    folder: Path
    jobs: Sequence[Job]
    options: GridOptions
    launcher: Sequence[str]
    record: tuple[str, Mapping[str, Any]]
    again: str
    compare: str
    search: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_launcher(name := launcher_of(self.launcher))
        if self.options.jobs > 1 and (name != "basic" or self.search):
            raise AnimegenError(
                "jobs= applies to lists of runs on this machine: use the settings of hydra/launcher= instead."
            )
        if self.options.dry_run and self.search:
            raise AnimegenError("dry_run= lists runs, and a search chooses them while it runs: leave it out.")
        if self.search:
            check_search(self.search)


def compose_job(name: str, words: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the configuration of a run, as ``run.json`` holds it, and its option of each configuration group.

    Raises:
        AnimegenError: if the overrides do not compose, or an ablation does not fit.
    """
    try:
        check_ablations(words)
        config, choices = compose_choices("train", words)
    except AnimegenError as error:
        raise AnimegenError(f"The run '{name}' cannot be composed: {error}") from error
    return json.loads(json.dumps(plain(config), default=str)), choices


def missing_words(job: Job, overwrite: bool = False) -> tuple[str, ...] | None:
    """Return the overrides that complete a run, or ``None`` if it has finished.

    A run with a checkpoint is resumed; one without starts again.

    Raises:
        AnimegenError: if its folder contains a run of another configuration.
    """
    output = f"output={_path(job.folder)}"
    if overwrite or not has_record(job.folder):
        return (*job.words, output, *(["overwrite=true"] if overwrite else []))
    record = read_record(job.folder)
    finished = record.get("status") == "finished"
    if not finished and not (job.folder / "checkpoints" / "last.ckpt").is_file():
        return (*job.words, output, "overwrite=true")  # it trained nothing, whatever its configuration was
    differing = (
        differences({"there": _what(record.get("config", {})), "asked": _what(job.config)}) if job.config else {}
    )
    for key, values in differing.items():
        raise AnimegenError(
            f"'{job.folder}' holds a run of another configuration ({key} is {values.get('there', 'absent')} there and"
            f" {values.get('asked', 'absent')} now): choose another output=, or train all again with overwrite=true."
        )
    return None if finished else (*job.words, f"resume={_path(job.folder)}")


def _what(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in CIRCUMSTANCES}


def _path(folder: Path) -> str:
    """Return a path as Hydra takes it, with quotes only where it needs them."""
    return str(folder) if re.fullmatch(r"[\w./+-]+", str(folder)) else quoted(folder)
