"""Run the jobs of a grid: here, or by one of Hydra's launchers. Each run is a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from animegen.config.ablations import KEY
from animegen.config.compose import explain, quoted, register
from animegen.engine.runs import read_record, unwritable
from animegen.errors import AnimegenError
from animegen.files import completed
from animegen.launch import jobs
from animegen.launch.grid import Grid, Job, missing_words
from animegen.launch.launchers import SIDE_BY_SIDE, launcher_of, with_defaults
from animegen.launch.slots import Slot, free_slot, share_machine
from animegen.locks import locked

LOG = "log.txt"
#: What a search calls ``ablation=``, which Hydra does not know; the runs get the word itself.
ABLATION = "swept_ablation"

register()  # here, since launchers unpickle the functions below in processes that have not composed anything


def run_grid(grid: Grid) -> int:
    """Run what is missing of a grid; return the exit code, 1 if a run failed.

    Raises:
        AnimegenError: if another command works in the folder, or it holds a run of another configuration.
        KeyboardInterrupt: after Ctrl+C or SIGTERM.
    """
    if grid.options.dry_run:
        for _, words in unfinished(grid):
            print(shlex.join(["animegen", "train", *words]))
        return 0
    with locked(grid.folder) as lock:
        todo = unfinished(grid)
        _write(grid.folder / grid.record[0], grid.record[1])
        count = "" if grid.search else f"{len(todo)} of {len(grid.jobs)} runs to do in "
        print(f"{grid.title}: {count}{grid.folder}", flush=True)
        try:
            if grid.search or launcher_of(grid.launcher) != "basic":
                total, failed = _run_elsewhere(grid, [job for job, _ in todo])
            else:
                total, failed = len(grid.jobs), _run_here(grid, todo, lock)
        except KeyboardInterrupt:
            print(f"animegen: stopped. To continue: {grid.again}", file=sys.stderr)
            raise
    for failure in failed:
        log = f" (log: {failure.task.log})" if failure.task.log.exists() else ""
        print(f"failed: {failure.task.name}: {failure.reason}{log}", file=sys.stderr)
    if failed:
        print(f"animegen: {len(failed)} of {total} runs failed. To run them again: {grid.again}", file=sys.stderr)
    if grid.search and (best := best_trial(grid.folder)):
        print(best)
    print(f"To compare the runs: {grid.compare}")
    return 1 if failed or not total else 0


def unfinished(grid: Grid) -> list[tuple[Job, tuple[str, ...]]]:
    """Return the runs that have not finished, each with the overrides that complete it."""
    found = [(job, missing_words(job, grid.options.overwrite)) for job in grid.jobs]
    return [(job, words) for job, words in found if words is not None]


def task_of(name: str, words: Sequence[str], folder: Path, steps: int, cwd: Path | None = None) -> jobs.Task:
    """Return the process of a run."""
    return jobs.Task(name, jobs.train_command(words), folder / LOG, steps, cwd)


# --- On this machine --------------------------------------------------------------------------------------------


def _run_here(grid: Grid, todo: Sequence[tuple[Job, tuple[str, ...]]], lock: int | None) -> list[jobs.Failure]:
    slots = share_machine(grid.options.jobs) if grid.options.jobs > 1 else [Slot()]
    share = [f"threads={slots[0].threads}"] if slots[0].threads else []
    tasks = []
    for job, words in todo:
        given = any(word.startswith("threads=") for word in words)
        tasks.append(task_of(job.name, [*words, *([] if given else share)], job.folder, job.config["train_steps"]))
    return jobs.run_all(tasks, slots, lock)


# --- By Hydra ---------------------------------------------------------------------------------------------------
#
# Hydra's launchers and sweepers compose a configuration for each job and call a function with it, in whatever process
# and on whatever machine they use. What to run, and how it ended, is in a file jobs/<n>.json of the grid's folder.


def _run_elsewhere(grid: Grid, todo: Sequence[Job]) -> tuple[int, list[jobs.Failure]]:
    """Run jobs by Hydra; return how many runs there are in all, and those that failed."""
    folder = grid.folder.absolute()
    for old in (folder / "jobs").glob("*.json"):
        old.unlink()
    for number, job in enumerate(todo):
        _write(_ticket(folder, number), _waiting(job, grid.options.overwrite))
    launcher = [*with_defaults(grid.launcher), f"hydra.sweep.dir={quoted(folder)}", "--multirun"]
    if grid.search:
        ours = f"{KEY}="
        words = [f"+{ABLATION}={w.removeprefix(ours)}" if w.startswith(ours) else w for w in grid.search]
        _call_hydra(_searched, [*words, *launcher], grid.search)
    elif todo:
        _call_hydra(_launched, [f"number=range({len(todo)})", *launcher], grid.launcher)
    paths = sorted((folder / "jobs").glob("[0-9]*.json"), key=lambda path: int(path.stem))
    tickets = [json.loads(path.read_text()) for path in paths]
    failed = [
        jobs.Failure(task_of(ticket["name"], (), Path(ticket["folder"]), 0), ticket.get("reason", "it ended abruptly"))
        for ticket in tickets
        if ticket["status"] != "finished"
    ]
    return (len(tickets) if grid.search else len(grid.jobs)), failed


def _call_hydra(main: Callable[[], Any], arguments: Sequence[str], words: Sequence[str]) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises errors as they are
    before = sys.argv
    sys.argv = [sys.argv[0], *arguments]
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        raise AnimegenError(explain(error, "train", words)) from error
    except OSError as error:
        raise unwritable(error.filename, error) from error
    finally:
        sys.argv = before


def launched_job(config: DictConfig) -> None:
    """Run a job of a list; called by the launcher."""
    _perform(config.number)


def searched_job(config: DictConfig) -> float | None:
    """Run a job of a search; called by the launcher.

    Returns:
        The value to optimize; ``None`` if the run failed, which does not end the search.
    """
    settings = HydraConfig.get()
    number, folder = int(settings.job.num), Path(settings.runtime.output_dir)
    words = [word for word in settings.overrides.task if word.partition("=")[0] not in ("output", "runs", "overwrite")]
    words = [f"{KEY}={word.partition('=')[2]}" if word.startswith(f"+{ABLATION}=") else word for word in words]
    job = Job(f"job {number} ({' '.join(words)})", tuple(words), folder, {"train_steps": config.train_steps})
    _write(_ticket(Path(settings.sweep.dir), number), _waiting(job, config.overwrite))
    return optimized(read_record(folder)) if _perform(number) else None


# Launchers find the functions by their names when they hand them to other processes.
_hydra_main = {"version_base": "1.3", "config_path": "pkg://animegen.conf"}
_launched = hydra.main(**_hydra_main, config_name="launch")(launched_job)
_searched = hydra.main(**_hydra_main, config_name="train")(searched_job)


def _ticket(folder: Path, number: int) -> Path:
    return folder / "jobs" / f"{number}.json"


def _waiting(job: Job, overwrite: bool) -> dict[str, Any]:
    return {
        **{"name": job.name, "words": job.words, "folder": str(job.folder.absolute())},
        **{"steps": job.config["train_steps"], "overwrite": overwrite, "status": "waiting"},
    }


def _perform(number: int) -> bool:
    """Run what a ticket describes, and write into it how that ended; return whether it finished."""
    settings = HydraConfig.get()
    grid = Path(settings.sweep.dir)
    path = _ticket(grid, number)
    ticket = json.loads(path.read_text())
    folder = Path(ticket["folder"])
    _write(path, {**ticket, "status": "running"})
    try:
        # Decided now: a cluster may start a job a second time.
        words = missing_words(Job(ticket["name"], tuple(ticket["words"]), folder), ticket["overwrite"])
        if words is not None:
            task = task_of(ticket["name"], words, folder, ticket["steps"], Path(settings.runtime.cwd))
            with _share(grid, settings.launcher) as (slot, lock):
                failed = jobs.run_all([task], [slot], lock)
            if failed:
                raise AnimegenError(failed[0].reason)
    except AnimegenError as error:
        _write(path, {**ticket, "status": "failed", "reason": str(error)})
        return False
    _write(path, {**ticket, "status": "finished"})
    return True


@contextlib.contextmanager
def _share(grid: Path, launcher: DictConfig) -> Iterator[tuple[Slot, int | None]]:
    """Hold a share of this machine, or leave it as the launcher has set it up for the job."""
    target = launcher.get("_target_", "").rpartition(".")[2]
    if target not in SIDE_BY_SIDE:
        yield Slot(), None
        return
    count = int(launcher.get("n_jobs", -1)) if target == "JoblibLauncher" else -1
    with free_slot(grid, count if count > 0 else None) as held:
        yield held


def best_trial(folder: Path) -> str:
    """Return a line with the best value of a search by Optuna and its parameters; empty if no trial finished."""
    path = folder / "optimization_results.yaml"
    try:
        found = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise AnimegenError(f"'{path}' cannot be read ({type(error).__name__}).") from error
    if not isinstance(found, dict) or "best_params" not in found:
        return ""
    words = " ".join(f"{key}={value}" for key, value in found["best_params"].items())
    return f"best value {found['best_value']:.5g}: {words}"


def optimized(record: Mapping[str, Any]) -> float | None:
    """Return the value that a search optimizes: the task's main metric, else the first validation metric.

    The main metric is missing where there were too few images for it, as for a distance of distributions.
    """
    evaluation = record.get("evaluation") or {}
    main = evaluation["methods"]["model"].get(evaluation["main"]) if evaluation else None
    if main is not None:
        return main["mean"]
    return next((value for name, value in record["metrics"].items() if name.startswith("val/")), None)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with completed(path) as hidden:
        hidden.write_text(json.dumps(content, indent=2, default=str) + "\n")
