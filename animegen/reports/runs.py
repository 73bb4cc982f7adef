"""Runs on disk: their scores, titles, curves, and grouping by seed."""

from __future__ import annotations

import csv
import glob
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from animegen.config.looks import looks
from animegen.engine.runs import RECORD, files_of_runs, has_record, read_record
from animegen.errors import AnimegenError
from animegen.files import existing_folder, real_path, user_path
from animegen.reports.differences import CIRCUMSTANCES, differences
from animegen.reports.samples import Samples

Curve = list[tuple[int, float]]
"""(train step, value), sorted by step."""


@dataclass(frozen=True)
class RunFolder:
    """A run on disk.

    Attributes:
        folder: its folder.
        record: content of ``run.json``.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def status(self) -> str:
        """How it ended, see :class:`animegen.engine.callbacks.RunRecord`."""
        return str(self.record.get("status", "unknown"))

    @property
    def seed(self) -> int | None:
        """Its seed."""
        return self.config.get("seed")

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration."""
        return self.record.get("config") or {}

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The scores of the final evaluation, if the run has finished."""
        return self.record.get("evaluation") if self.status == "finished" else None

    @property
    def title(self) -> str:
        """The experiment or model, and the ablations."""
        choices = self.record.get("choices") or {}
        experiment = str(choices.get("experiment") or "none")
        what = experiment if experiment != "none" else str(choices.get("model", self.folder.name))
        ablations = sorted(name for name, on in (self.config.get("ablations") or {}).items() if on)
        return "+".join([what, *ablations])

    def score(self, method: str, metric: str) -> float | None:
        """Return the mean of a metric of a method on the test set; ``None`` if there is none, or it is not finite."""
        if self.evaluation is None:
            return None
        value = self.evaluation["methods"].get(method, {}).get(metric)
        return None if value is None else value["mean"]

    @cached_property
    def samples(self) -> Samples | None:
        """The images of its evaluation, if it kept any."""
        return Samples.of_run(self.folder)

    def comparable(self, other: RunFolder) -> bool:
        """Tell whether both have scores of the same benchmark: task, samples, and the first baseline agree."""
        mine, yours = self.evaluation, other.evaluation
        if mine is None or yours is None or any(mine[key] != yours[key] for key in ("task", "main")):
            return False
        if self.samples and other.samples and self.samples.digests != other.samples.digests:
            return False
        (name, ours), (other_name, theirs) = next(iter(mine["methods"].items())), next(iter(yours["methods"].items()))
        return name == other_name and ours.keys() == theirs.keys() and all(_equal(ours[m], theirs[m]) for m in ours)


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Compare two scores; devices may differ in the last digits."""
    if one["n"] != other["n"] or (one["mean"] is None) != (other["mean"] is None):
        return False
    return one["mean"] is None or math.isclose(one["mean"], other["mean"], rel_tol=1e-2, abs_tol=1e-3)


def load_run(folder: Path) -> RunFolder:
    """Read a run folder."""
    return RunFolder(folder, read_record(folder))


def find_runs(words: Sequence[str]) -> list[RunFolder]:
    """Return the runs that paths name: run folders, folders that contain runs, and patterns.

    Raises:
        AnimegenError: for a path without runs.
    """
    found: dict[Path, RunFolder] = {}
    for word in words:
        path = user_path("the run", word)
        if path.exists():
            existing_folder(path)
            paths = [path]
        else:
            paths = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        folders = sorted(
            folder
            for start in paths
            for folder in ([start] if has_record(start) else [file.parent for file in files_of_runs(start, RECORD)])
        )
        if not folders:
            if word in looks():
                raise AnimegenError(
                    f"'{word}' is a look, without the record of a run: measure it and your runs on the same photos by"
                    f" animegen eval checkpoint={word} input=<photos>."
                )
            existing_folder(path)
            raise AnimegenError(f"'{word}' contains no run: name run folders, or a folder that contains some.")
        for folder in folders:
            found.setdefault(Path(real_path(folder)), load_run(folder))
    return list(found.values())


def group_seeds(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Return rows of runs that differ only in the seed, ``{name: runs}``, in the order of the runs.

    Rows with the same title are told apart by one or two differing settings, or else by their folders.
    """
    groups: dict[str, list[RunFolder]] = {}
    for run in runs:
        groups.setdefault(json.dumps(seedless(run.config), sort_keys=True, default=str), []).append(run)
    titles: dict[str, list[list[RunFolder]]] = {}
    for group in groups.values():
        titles.setdefault(group[0].title, []).append(group)
    rows: dict[str, list[RunFolder]] = {}
    for group in groups.values():
        same = titles[group[0].title]
        title = group[0].title if len(same) == 1 else _full_title(group, same)
        rows.setdefault(title if title not in rows else f"{title} {group[0].folder}", []).extend(group)
    return rows


def _full_title(group: list[RunFolder], same: list[list[RunFolder]]) -> str:
    differing = differences({str(number): seedless(other[0].config) for number, other in enumerate(same)})
    mine = str(next(number for number, other in enumerate(same) if other is group))
    values = {key: value[mine] for key, value in differing.items() if mine in value}
    if 0 < len(differing) <= 2 and not any(isinstance(value, dict | list) for value in values.values()):
        return " ".join([group[0].title, *(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())])
    return f"{group[0].title} {group[0].folder.name}"


def seedless(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without seeds and without the keys of `CIRCUMSTANCES`."""
    return {key: _seedless(value) for key, value in config.items() if key not in CIRCUMSTANCES and key != "seed"}


def _seedless(node: Any) -> Any:
    return {key: _seedless(value) for key, value in node.items() if key != "seed"} if isinstance(node, dict) else node


def read_curves(folder: Path, prefix: str = "val/") -> dict[str, Curve]:
    """Return the logged scalars of a run as ``{name: curve}``, from ``metrics.csv`` or else TensorBoard's event files.

    Args:
        folder: the run folder.
        prefix: of the names to return; it is removed.
    """
    table = folder / "metrics.csv"
    curves: dict[str, Curve] = {}
    if table.is_file():
        try:
            with table.open(newline="") as file:
                for row in csv.DictReader(file):
                    for name, value in row.items():
                        if name and name.startswith(prefix) and value:
                            curves.setdefault(name.removeprefix(prefix), []).append((int(row["step"]), float(value)))
        except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise AnimegenError(
                f"'{table}' is damaged ({' '.join(str(error).split())[:100]}): remove it to use the event files."
            ) from error
        return curves
    if not any(folder.glob("events.out.tfevents.*")):
        return curves
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1})
    events.Reload()
    for name in events.Tags()["scalars"]:
        if name.startswith(prefix):
            values = {event.step: event.value for event in events.Scalars(name)}  # a resumed run may repeat a step
            curves[name.removeprefix(prefix)] = sorted(values.items())
    return curves
